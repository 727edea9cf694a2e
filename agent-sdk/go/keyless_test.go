package mayfly

// Sub-agents that are no processes: one process, one key, many agents; and calls that meet a renewal.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func init() { programs["meets"] = meets }

func TestASubAgentIsItselfItsParentPresentsAndItSpawnsNothing(t *testing.T) {
	t.Parallel()
	me := agent(t, "researcher", "demo", Asked{})
	child, err := me.Spawn(t.Context(), "worker", Asked{Scopes: []string{"search:read"}, Keyless: true})
	check(t, err)
	id := child.ID()
	if id == me.ID() || !strings.HasPrefix(id.String(), domain+"/agent/worker/") {
		t.Fatal(id)
	}
	same(t, child.User().Sub, me.User().Sub)
	text, err := child.Token(t.Context(), search)
	check(t, err)
	claims := claimsOf(text)
	same(t, claims["sub"].(string), id.String())
	if bound, _ := claims["cnf"].(map[string]any); len(bound) != 1 || bound["x5t#S256"] == nil {
		t.Fatal(claims["cnf"])
	}
	own, err := me.Token(t.Context(), search)
	check(t, err)
	if claimsOf(own)["cnf"] != nil || own == text {
		t.Fatal("they share a token")
	}
	access, err := child.Token(t.Context(), search, "search:read")
	check(t, err)
	same(t, claimsOf(access)["client_id"].(string), id.String())
	_, err = child.Token(t.Context(), "https://mail.example")
	is(t, err, ErrDenied, "AUDIENCE_NOT_ALLOWED")
	_, err = child.Spawn(t.Context(), "worker", Asked{Keyless: true})
	is(t, err, ErrDenied, "PARENT_ONLY")
	check(t, child.End(t.Context()))
	same(t, stateOf(t, id.String()), "ended")
	_, err = child.Token(t.Context(), search)
	is(t, err, ErrEnded, "ended")
	_, err = me.Assertion(t.Context(), search)
	check(t, err)
}

func TestARevokedSubAgentStopsAloneAndAllStopWithTheirParent(t *testing.T) {
	t.Parallel()
	me := agent(t, "researcher", "demo", Asked{})
	one, err := me.Spawn(t.Context(), "worker", Asked{Keyless: true})
	check(t, err)
	two, err := me.Spawn(t.Context(), "worker", Asked{Keyless: true})
	check(t, err)
	mayfly(t, "revoke", "--agent", one.ID().String())
	_, err = one.Token(t.Context(), search)
	is(t, err, ErrRevoked, "AGENT_REVOKED")
	_, err = two.Token(t.Context(), search)
	check(t, err)
	work, cancel := two.Context(t.Context())
	defer cancel()
	mayfly(t, "revoke", "--agent", me.ID().String())
	<-work.Done()
	_, err = two.Token(t.Context(), search)
	if !errors.Is(err, ErrRevoked) {
		t.Fatal(err)
	}
}

func TestAHundredSubAgentsInOneProcessHaveATokenEachAndARotationFailsNoCall(t *testing.T) {
	t.Parallel()
	me := agent(t, "quick", "demo", Asked{})
	some := make([]*Identity, 100)
	each(t, len(some), func(n int) (err error) {
		some[n], err = me.Spawn(t.Context(), "quick", Asked{Keyless: true})
		return err
	})
	seen := sync.Map{}
	each(t, len(some), func(n int) error {
		text, err := some[n].Token(t.Context(), search)
		if sub := claimsOf(text)["sub"]; err == nil && sub != some[n].ID().String() {
			err = fmt.Errorf("%v has a token of %v", some[n].ID(), sub)
		}
		if _, again := seen.LoadOrStore(text, true); err == nil && again {
			err = errors.New("two share a token")
		}
		return err
	})
	first, err := me.GetX509SVID()
	check(t, err)
	bound := func() any {
		text, err := some[0].Token(t.Context(), search)
		check(t, err)
		return claimsOf(text)["cnf"].(map[string]any)["x5t#S256"]
	}
	before := bound()
	for now := first; now == first; time.Sleep(20 * time.Millisecond) {
		now, err = me.GetX509SVID()
		check(t, err)
		_, err = some[1].Token(t.Context(), search)
		check(t, err)
	}
	if bound() == before {
		t.Fatal("a token is bound to the certificate before")
	}
	each(t, len(some), func(n int) error { return some[n].End(t.Context()) })
	check(t, me.Err())
}

// Eight at a time.
func each(t *testing.T, count int, do func(int) error) {
	t.Helper()
	errs, places := make(chan error, count), make(chan struct{}, 8)
	for n := range count {
		places <- struct{}{}
		go func() { errs <- do(n); <-places }()
	}
	for range count {
		check(t, <-errs)
	}
}

// The first certificate that is fetched is one from before a used renewal, as when a renewal comes in between.
func meets() error {
	ctx := context.Background()
	me, err := Current(ctx)
	if err != nil {
		return err
	}
	defer me.Close()
	api := me.keeper.(*served)
	old, err := api.fetch(ctx)
	if err != nil {
		return err
	}
	for now := old.DefaultSVID(); now.Certificates[0].Equal(old.DefaultSVID().Certificates[0]); time.Sleep(20 * time.Millisecond) {
		if now, err = me.GetX509SVID(); err != nil {
			return err
		}
	}
	time.Sleep(300 * time.Millisecond)
	asked := 0
	api.newest = func(ctx context.Context) (*workloadapi.X509Context, error) {
		if asked++; asked == 1 {
			return old, nil
		}
		return api.fetch(ctx)
	}
	child, err := me.Spawn(ctx, "quick", Asked{})
	if err != nil {
		return err
	}
	defer child.Close()
	sub, err := me.Spawn(ctx, "quick", Asked{Keyless: true})
	if err != nil {
		return err
	}
	for _, scopes := range [][]string{nil, {"search:read"}} {
		if _, err := sub.Token(ctx, search, scopes...); err != nil {
			return err
		}
	}
	if err := errors.Join(sub.End(ctx), child.End(ctx), me.Err()); err != nil {
		return err
	}
	_, err = me.Assertion(ctx, search)
	fmt.Println(asked > 2)
	return err
}

func TestUnderMayflyRunSubAgentsAndCallsMeetRenewalsAndNobodyIsRevoked(t *testing.T) {
	t.Parallel()
	out, err := run(t, "quick", "meets", "MAYFLY_SERVER="+dev.address).Output()
	check(t, err)
	same(t, string(out), "true\n")
}
