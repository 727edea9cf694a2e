package mayfly

// Spawning: one agent, certified for a key that is made here.

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"strings"
	"time"

	"crypto/rand"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"mayfly.dev/agent-sdk/go/mayflyv1"
)

// Asked is what a spawn asks for.
type Asked struct {
	// Scopes and Audiences: all that is allowed, if left out.
	Scopes, Audiences []string
	// Lease: as long as allowed, if left out. Whole seconds.
	Lease time.Duration
	// MaxDepth: further levels of agents below it; as many as allowed, if nil.
	MaxDepth *uint32
	// UserToken or Delegation: for whom a workload's agent acts. An agent's child acts for the agent's own user.
	UserToken, Delegation string
	// Autonomous: it acts for nobody.
	Autonomous bool
	// Clip: accept less than was asked for.
	Clip bool
	// Keyless: a sub-agent of this process, such as a goroutine. It has no key: its tokens are bound to the certificate of the identity
	// that spawns it, which is an agent. It spawns nothing.
	Keyless bool
}

// Spawn makes an agent below this identity. It renews itself; end it with End. The kinds of its errors are ErrDenied, ErrUnavailable,
// ErrRevoked and ErrNoIdentity.
func (i *Identity) Spawn(ctx context.Context, class string, asked Asked) (*Identity, error) {
	var key *ecdsa.PrivateKey
	var csr []byte
	if !asked.Keyless {
		var err error
		if key, csr, err = newKey(); err != nil {
			return nil, err
		}
	}
	request := &mayflyv1.SpawnRequest{
		// A lost answer is asked for again without spawning a second agent.
		RequestId:    rand.Text(),
		Class:        class,
		Csr:          csr,
		Keyless:      asked.Keyless,
		UserToken:    strings.TrimSpace(asked.UserToken),
		Delegation:   asked.Delegation,
		Scopes:       asked.Scopes,
		Audiences:    asked.Audiences,
		LeaseSeconds: uint64(max(asked.Lease, 0) / time.Second),
		MaxDepth:     asked.MaxDepth,
		Excess:       mayflyv1.Excess_EXCESS_DENY,
	}
	if asked.Autonomous {
		request.Mode = mayflyv1.Mode_MODE_AUTONOMOUS
	}
	if asked.Clip {
		request.Excess = mayflyv1.Excess_EXCESS_CLIP
	}
	return insist(ctx, func() (child *Identity, err error) {
		err = i.keeper.connected(ctx, func(c *connection) error {
			got, err := call(ctx, c, mayflyv1.IdentitiesClient.Spawn, request)
			if err != nil {
				return err
			}
			if asked.Keyless {
				child, err = newSubAgent(i, got.GetAgent())
				if err == nil {
					child.Clipped = got.GetClipped()
				}
				return err
			}
			held, err := answered(key, got.GetSvid(), got.GetBundle())
			if err != nil {
				return err
			}
			var lease time.Time
			if got.GetAgent().GetLeaseExpiresAt() != nil {
				lease = got.GetAgent().GetLeaseExpiresAt().AsTime()
			}
			child, err = own(c.address, held, lease)
			if err == nil {
				child.Clipped = got.GetClipped()
			}
			return err
		})
		return child, err
	})
}

// The roots of a foreign trust domain.
func foreignRoots(of spiffeid.TrustDomain, document []byte) (*x509bundle.Bundle, error) {
	if !json.Valid(document) {
		return nil, wrong(ErrUnusable, "answer", "a foreign bundle is no JSON")
	}
	bundle, err := spiffebundle.Parse(of, document)
	if err != nil {
		return nil, err
	}
	return bundle.X509Bundle(), nil
}
