package mayfly

// Verification of agents by `mayfly guard`, which runs beside the service and hears of every revocation at once.

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"mayfly.dev/agent-sdk/go/binding"
)

// Caller is the agent that made a request. Its credential was valid, and not revoked, a moment ago.
type Caller struct {
	// AgentID is a SPIFFE ID.
	AgentID string
	// User is the user it acts for; nil for an autonomous agent.
	User *binding.User
	// Chain holds the SPIFFE IDs from the parent up to the root workload.
	Chain  []string
	Scopes []string
	// DelegationID has 64 hex digits; it is empty for an autonomous agent.
	DelegationID string
	// Mode is binding.Delegated or binding.Autonomous.
	Mode string
	// ExpiresAt is when the credential expires.
	ExpiresAt time.Time
	// Revision is that up to which every revocation is known.
	Revision uint64
}

// Refused is why a request is refused: Status is 401, 403 or 503.
type Refused struct {
	Status int
	// Code is a reason code, which the client may read; Hint is for us.
	Code, Hint string
	Scopes     []string
}

func (r *Refused) Error() string { return r.Code + ": " + r.Hint }

// Unwrap returns ErrUnavailable where it is not known whether the credential is valid, and otherwise ErrDenied.
func (r *Refused) Unwrap() error {
	if r.Status == http.StatusServiceUnavailable {
		return ErrUnavailable
	}
	return ErrDenied
}

func notKnown(why any) *Refused {
	hint := fmt.Sprintf("it is not known whether the credential is valid: %v; check that the guard runs", why)
	return &Refused{Status: http.StatusServiceUnavailable, Code: "GUARD_UNAVAILABLE", Hint: hint}
}

// What another credential does not cure; whatever else a guard refuses is a credential that is not valid.
var forbidden = []string{"SCOPE_MISSING", "CALLER_NOT_AN_AGENT", "CALLER_NOT_AUTHORIZED"}

// Checker says who presents a token, if it is valid now and has all of these scopes. The error is a [*Refused].
type Checker interface {
	Check(ctx context.Context, token string, scopes ...string) (*Caller, error)
}

// Guard asks a `mayfly guard`. Goroutines may share it.
type Guard struct {
	audience string
	client   http.Client
}

// NewGuard takes the guard's address, `unix:/path` or `host:port` on loopback, and the audience of this service, which tokens must be
// for. Where one is empty, MAYFLY_GUARD and MAYFLY_AUDIENCE say so. The kind of its errors is ErrUnusable.
func NewGuard(address, audience string) (*Guard, error) {
	if address == "" {
		address = os.Getenv("MAYFLY_GUARD")
	}
	if audience == "" {
		audience = os.Getenv("MAYFLY_AUDIENCE")
	}
	if audience == "" {
		return nil, wrong(ErrUnusable, "audience", "say which audience tokens must be for, or set MAYFLY_AUDIENCE")
	}
	network, where := "tcp", address
	if path, found := strings.CutPrefix(address, "unix:"); found && strings.HasPrefix(path, "/") {
		network, where = "unix", path
	} else if !regexp.MustCompile(`^(127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}$`).MatchString(address) {
		return nil, wrong(ErrUnusable, "guard", "`%s` is no guard: write unix:/path or 127.0.0.1:port, or set MAYFLY_GUARD", shorten(address))
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, where)
	}
	transport := &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute}
	return &Guard{audience, http.Client{Transport: transport, Timeout: 2 * time.Second}}, nil
}

// Check asks about a JWT-SVID.
func (g *Guard) Check(ctx context.Context, token string, scopes ...string) (*Caller, error) {
	return g.check(ctx, map[string]any{"credential": token, "audience": g.audience}, scopes)
}

// CheckPeer asks about the certificate of a peer, alone or with its chain. The handshake must have proved that it holds the key.
func (g *Guard) CheckPeer(ctx context.Context, chain []*x509.Certificate, scopes ...string) (*Caller, error) {
	if len(chain) == 0 {
		return nil, &Refused{http.StatusUnauthorized, "CREDENTIAL_MISSING", "show a certificate", scopes}
	}
	var text []byte
	for _, certificate := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})...)
	}
	return g.check(ctx, map[string]any{"credential": string(text)}, scopes)
}

// Authorize is for go-spiffe's TLS settings, as in tlsconfig.MTLSServerConfig(me, me, guard.Authorize("mail:send")): go-spiffe verifies
// the chain, and whoever was revoked or lacks a scope does not pass the handshake. Connections that are open stay open.
func (g *Guard) Authorize(scopes ...string) tlsconfig.Authorizer {
	return func(id spiffeid.ID, chains [][]*x509.Certificate) error {
		if len(chains) == 0 || len(chains[0]) == 0 {
			return &Refused{http.StatusUnauthorized, "CREDENTIAL_MISSING", "there is no certificate", scopes}
		}
		// Without the root, which the guard knows.
		chain := chains[0][:max(len(chains[0])-1, 1)]
		caller, err := g.CheckPeer(context.Background(), chain, scopes...)
		if err == nil && caller.AgentID != id.String() {
			return notKnown("it speaks of another agent")
		}
		return err
	}
}

func (g *Guard) check(ctx context.Context, question map[string]any, scopes []string) (*Caller, error) {
	// An empty list, and not null.
	question["scopes"] = append([]string{}, scopes...)
	body, err := json.Marshal(question)
	if err != nil {
		return nil, notKnown(err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://guard/verify", bytes.NewReader(body))
	if err != nil {
		return nil, notKnown(err)
	}
	request.Header.Set("Content-Type", "application/json")
	// A question may be asked again, where a connection that was kept has been closed meanwhile. This header is not sent.
	request.Header["Idempotency-Key"] = nil
	response, err := g.client.Do(request)
	if err != nil {
		return nil, notKnown(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, notKnown(err)
	}
	var said answer
	unread := json.Unmarshal(text, &said)
	switch {
	case response.StatusCode == http.StatusBadRequest || response.StatusCode == http.StatusRequestEntityTooLarge:
		// The guard cannot read what the client sent as a credential.
		return nil, &Refused{http.StatusUnauthorized, "CREDENTIAL_MALFORMED", "the credential cannot be read", scopes}
	case unread != nil || said.Decision == nil:
		return nil, notKnown("its answer cannot be read")
	case response.StatusCode == http.StatusOK && *said.Decision:
		return said.caller(scopes)
	case response.StatusCode == http.StatusForbidden && !*said.Decision && said.Reason != "":
		status := http.StatusUnauthorized
		if said.Reason == "CREDENTIAL_STALE" {
			status = http.StatusServiceUnavailable
		} else if slices.Contains(forbidden, said.Reason) {
			status = http.StatusForbidden
		}
		return nil, &Refused{status, said.Reason, said.Hint, scopes}
	}
	return nil, notKnown(fmt.Sprintf("it answers with %d", response.StatusCode))
}

type answer struct {
	Decision *bool   `json:"decision"`
	Reason   string  `json:"reason"`
	Hint     string  `json:"hint"`
	AgentID  *string `json:"agent_id"`
	User     *struct {
		Iss string `json:"iss"`
		Sub string `json:"sub"`
	} `json:"user"`
	Chain        []string  `json:"chain"`
	Scopes       []string  `json:"scopes"`
	DelegationID *string   `json:"delegation_id"`
	Mode         string    `json:"mode"`
	ExpiresAt    time.Time `json:"expires_at"`
	Revision     *uint64   `json:"revision"`
}

// Reads a positive answer strictly: what is not as it should be is no yes.
func (a *answer) caller(scopes []string) (*Caller, error) {
	if a.AgentID == nil {
		return nil, &Refused{http.StatusForbidden, "CALLER_NOT_AN_AGENT", "only agents may call this", scopes}
	}
	broken := *a.AgentID == "" || len(a.Chain) == 0 || a.Scopes == nil || a.Mode == "" || a.ExpiresAt.IsZero() || a.Revision == nil
	if broken || (a.User != nil && (a.User.Iss == "" || a.User.Sub == "")) {
		return nil, notKnown("its answer lacks something")
	}
	for _, scope := range scopes {
		if !slices.Contains(a.Scopes, scope) {
			return nil, &Refused{http.StatusForbidden, "SCOPE_MISSING", "the agent lacks the scope `" + scope + "`", scopes}
		}
	}
	caller := &Caller{AgentID: *a.AgentID, Chain: a.Chain, Scopes: a.Scopes, Mode: a.Mode, ExpiresAt: a.ExpiresAt, Revision: *a.Revision}
	if a.User != nil {
		caller.User = &binding.User{Iss: a.User.Iss, Sub: a.User.Sub}
	}
	if a.DelegationID != nil {
		caller.DelegationID = *a.DelegationID
	}
	return caller, nil
}
