package mayfly

// The identity of this program: who it is, its tokens, and when it has ended.

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"

	"mayfly.dev/agent-sdk/go/binding"
	"mayfly.dev/agent-sdk/go/mayflyv1"
)

// Identity is an agent or a workload whose certificate is renewed in the background. Goroutines may share it. After it has ended,
// whatever would use it fails with [ErrRevoked]. It is a go-spiffe source of certificates and of bundles.
type Identity struct {
	keeper keeper
	state  *state
	// Of a sub-agent without a key; otherwise absent.
	agent *mayflyv1.Agent
	id    spiffeid.ID
	// Clipped is what was asked for and not given, only after a spawn with Clip.
	Clipped []string
}

var (
	_ x509svid.Source   = (*Identity)(nil)
	_ x509bundle.Source = (*Identity)(nil)
)

// What keeps an identity alive.
type keeper interface {
	// For itself, or for a sub-agent without a key.
	mint(ctx context.Context, audience, forAgent string) (string, time.Time, error)
	exchange(ctx context.Context, audience string, scopes []string, forAgent string) (string, time.Time, error)
	// Makes calls to the issuer as this identity.
	connected(ctx context.Context, use func(*connection) error) error
	// Makes one call that is about this identity.
	asked(ctx context.Context, use func(*connection) error) error
	end(ctx context.Context) error
	close()
}

// One certificate with its key, and the bundles at that time.
type current struct {
	svid     *x509svid.SVID
	bundles  *x509bundle.Set
	sequence uint64
}

// What the goroutines of an identity change and its users read.
type state struct {
	tokens *cache
	ended  context.Context
	end    context.CancelCauseFunc
	// Guards what is below, for a look or a change.
	mutex sync.Mutex
	held  *current
	over  error
	// Of a sub-agent without a key: whose certificate is presented. Its tokens are bound to that.
	parent *state
	under  *x509svid.SVID
}

func newState() *state {
	ended, end := context.WithCancelCause(context.Background())
	return &state{tokens: newCache(), ended: ended, end: end}
}

// The newest certificate.
func (s *state) current() (*current, error) {
	if s.parent != nil {
		return s.presented()
	}
	s.mutex.Lock()
	held, over := s.held, s.over
	s.mutex.Unlock()
	switch {
	case over != nil:
		return nil, over
	case held == nil:
		return nil, wrong(ErrUnavailable, "no_identity_yet", "no identity has arrived yet")
	case !now().Before(held.svid.Certificates[0].NotAfter):
		s.endBecause(wrong(ErrExpired, "expired", "it could not be renewed in time: check that the issuer runs"))
		return s.current()
	}
	return held, nil
}

// What the parent of a sub-agent presents. A token that is bound to the certificate before is of no use with the next one.
func (s *state) presented() (*current, error) {
	held, err := s.parent.current()
	s.mutex.Lock()
	over := s.over
	moved := err == nil && s.under != nil && s.under != held.svid
	if err == nil {
		s.under = held.svid
	}
	s.mutex.Unlock()
	if over != nil {
		return nil, over
	}
	if moved {
		s.tokens.clear()
	}
	return held, err
}

// The newest roots, for connections that are made later.
func (s *state) GetX509BundleForTrustDomain(trustDomain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	held, err := s.current()
	if err != nil {
		return nil, err
	}
	return held.bundles.GetX509BundleForTrustDomain(trustDomain)
}

func (s *state) set(held *current) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.held = held
}

// Ends the identity. Only the first reason counts.
func (s *state) endBecause(why error) {
	s.mutex.Lock()
	over := s.over
	if over == nil {
		s.over = why
	}
	s.mutex.Unlock()
	if over == nil {
		// ORDER: before anybody is notified.
		s.tokens.clear()
		s.end(why)
	}
}

// ID is the SPIFFE ID; the zero ID after the end.
func (i *Identity) ID() spiffeid.ID {
	if held, err := i.state.current(); err == nil && i.agent == nil {
		return held.svid.ID
	} else if err == nil {
		return i.id
	}
	return spiffeid.ID{}
}

// Binding is what the certificate of an agent says beyond its ID: user, scopes, chain, end of the lease. Of a sub-agent without a key no
// certificate says it; each of its tokens does.
func (i *Identity) Binding() (*binding.Binding, error) {
	held, err := i.state.current()
	if err != nil {
		return nil, err
	}
	if i.agent != nil {
		return nil, wrong(ErrUnusable, "keyless", "an agent without a key has no certificate: its tokens say what it may do")
	}
	return binding.FromCertificate(held.svid.Certificates[0])
}

// User is the user it acts for; nil for a workload and for an autonomous agent.
func (i *Identity) User() *binding.User {
	if user := i.agent.GetUser(); user != nil {
		return &binding.User{Iss: user.GetIss(), Sub: user.GetSub()}
	}
	if b, err := i.Binding(); err == nil {
		return b.User
	}
	return nil
}

// GetX509SVID returns the newest certificate with its key, for go-spiffe; of a sub-agent without a key that of its parent.
func (i *Identity) GetX509SVID() (*x509svid.SVID, error) {
	held, err := i.state.current()
	if err != nil {
		return nil, err
	}
	return held.svid, nil
}

// GetX509BundleForTrustDomain returns the roots of a trust domain, for go-spiffe.
func (i *Identity) GetX509BundleForTrustDomain(trustDomain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return i.state.GetX509BundleForTrustDomain(trustDomain)
}

// Token is for one audience, to be sent as `Authorization: Bearer`. Ask for it before each request.
//
// Without scopes it is a JWT-SVID, and says all that the agent may do. With scopes it is an access token of the issuer for those and
// no more; "" asks for all that may be given. It is cached for half of its life; if no new one can be had then, the cached one is
// returned until shortly before it expires. The kinds of its errors are ErrDenied, ErrUnavailable, ErrRevoked and ErrUnusable.
func (i *Identity) Token(ctx context.Context, audience string, scopes ...string) (string, error) {
	if _, err := i.state.current(); err != nil {
		return "", err
	}
	of, wanted := keyOf(audience, scopes)
	if fresh, found := i.state.tokens.fresh(of); found {
		return fresh, nil
	}
	text, err := i.state.tokens.once(ctx, of, func() (string, time.Time, error) {
		// It ends with the identity, and with the limits of its calls.
		if wanted == nil {
			return i.keeper.mint(i.state.ended, audience, "")
		}
		return i.keeper.exchange(i.state.ended, audience, wanted, "")
	})
	if held, found := i.state.tokens.holding(of); err != nil && transient(err) && found {
		text, err = held, nil
	}
	// If the identity has ended in the meantime, the token is not handed out.
	if _, ended := i.state.current(); ended != nil {
		return "", ended
	}
	return text, err
}

// Assertion is a new JWT-SVID each time, because an authorization server accepts an assertion once.
func (i *Identity) Assertion(ctx context.Context, audience string) (string, error) {
	if _, err := i.state.current(); err != nil {
		return "", err
	}
	text, _, err := i.keeper.mint(ctx, audience, "")
	return text, err
}

// Context is `parent`, canceled when the identity ends; [context.Cause] then is the reason.
func (i *Identity) Context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	stop := context.AfterFunc(i.state.ended, func() { cancel(context.Cause(i.state.ended)) })
	return ctx, func() { stop(); cancel(context.Canceled) }
}

// Err says why the identity has ended; nil while it has not.
func (i *Identity) Err() error {
	if _, err := i.state.current(); !transient(err) {
		return err
	}
	return nil
}

// Transport puts a token on each request; `base` may be nil. After a redirect to another origin there is no token.
func (i *Identity) Transport(base http.RoundTripper, audience string, scopes ...string) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		first := request
		for first.Response != nil && first.Response.Request != nil {
			first = first.Response.Request
		}
		if first.URL.Scheme != request.URL.Scheme || first.URL.Host != request.URL.Host {
			return base.RoundTrip(request)
		}
		token, err := i.Token(request.Context(), audience, scopes...)
		if err != nil {
			if request.Body != nil {
				request.Body.Close()
			}
			return nil, err
		}
		request = request.Clone(request.Context())
		request.Header.Set("Authorization", "Bearer "+token)
		return base.RoundTrip(request)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// Credentials puts a token on each gRPC call: grpc.WithPerRPCCredentials(me.Credentials(audience)). It wants a connection with TLS.
func (i *Identity) Credentials(audience string, scopes ...string) credentials.PerRPCCredentials {
	return perCall{i, audience, scopes}
}

type perCall struct {
	identity *Identity
	audience string
	scopes   []string
}

func (c perCall) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := c.identity.Token(ctx, c.audience, c.scopes...)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

func (perCall) RequireTransportSecurity() bool { return true }

// End ends the agent at the issuer, with everything below it; a workload is closed.
func (i *Identity) End(ctx context.Context) error { return i.keeper.end(ctx) }

// Close stops following and renewing; the agent itself goes on until its certificate expires.
func (i *Identity) Close() { i.keeper.close() }

func isAgent(id spiffeid.ID) bool { return strings.HasPrefix(id.Path(), "/agent/") }
