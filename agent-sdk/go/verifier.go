package mayfly

// A verifier of its own, on go-spiffe's sources, and the guard for what only the feed of revocations knows.

import (
	"context"
	"net/http"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"

	"mayfly.dev/agent-sdk/go/binding"
)

// Verifier verifies JWT-SVIDs by bundles that this process follows itself, such as those of a workloadapi.JWTSource, and then asks the
// guard whether they were revoked. Both must agree. Certificates are verified by go-spiffe's TLS settings with [Guard.Authorize].
type Verifier struct {
	Bundles jwtbundle.Source
	Guard   *Guard
}

// Check is as in [Checker].
func (v *Verifier) Check(ctx context.Context, token string, scopes ...string) (*Caller, error) {
	refused := func(code string, err error) error {
		return &Refused{http.StatusUnauthorized, code, err.Error(), scopes}
	}
	svid, err := jwtsvid.ParseAndValidate(token, v.Bundles, []string{v.Guard.audience})
	if err != nil {
		return nil, refused("CREDENTIAL_UNTRUSTED", err)
	}
	if !isAgent(svid.ID) {
		return nil, &Refused{http.StatusForbidden, "CALLER_NOT_AN_AGENT", "only agents may call this", scopes}
	}
	said, err := binding.FromClaims(svid.Claims)
	if err != nil {
		return nil, refused("BINDING_MALFORMED", err)
	}
	caller, err := v.Guard.Check(ctx, token, scopes...)
	if err != nil {
		return nil, err
	}
	if caller.AgentID != svid.ID.String() || caller.Mode != said.Mode || (caller.User == nil) != (said.User == nil) {
		return nil, notKnown("it speaks of another agent than the token")
	}
	return caller, nil
}
