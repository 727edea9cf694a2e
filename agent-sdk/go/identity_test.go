package mayfly

// Identities against a real issuer: tokens, rotation, revocation, denial, trees, outages.

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func stateOf(t *testing.T, id string) string {
	t.Helper()
	var agent struct{ State string }
	check(t, json.Unmarshal([]byte(mayfly(t, "agents", "show", id, "-o", "json")), &agent))
	return agent.State
}

func is(t *testing.T, err, kind error, code string) {
	t.Helper()
	if !errors.Is(err, kind) || codeOf(err) != code {
		t.Fatalf("%v is not %v with the code %s", err, kind, code)
	}
}

func TestAnAgentKnowsItselfAndAfterItsEndEverythingFails(t *testing.T) {
	lead := agent(t, "researcher", "guest", Asked{Lease: 10 * time.Minute})
	worker, err := lead.Spawn(t.Context(), "worker", Asked{Scopes: []string{"search:read"}})
	check(t, err)
	same(t, worker.User().Sub, "guest")
	said, err := worker.Binding()
	check(t, err)
	if !slices.Equal(said.Chain, []string{lead.ID().String(), domain + "/workload/orchestrator"}) || !slices.Equal(said.Scopes, []string{"search:read"}) {
		t.Fatalf("%+v", said)
	}
	_, err = lead.Spawn(t.Context(), "worker", Asked{Scopes: []string{"mail:send"}})
	is(t, err, ErrDenied, "EXCEEDS_AUTHORITY")
	clipped, err := lead.Spawn(t.Context(), "worker", Asked{Scopes: []string{"mail:send", "search:read"}, Clip: true})
	check(t, err)
	same(t, strings.Join(clipped.Clipped, ","), "scope:mail:send")
	id := lead.ID().String()
	check(t, lead.End(t.Context()))
	same(t, stateOf(t, id), "ended")
	_, err = lead.Token(t.Context(), search)
	is(t, err, ErrEnded, "ended")
	if !errors.Is(err, ErrRevoked) || !errors.Is(lead.Err(), ErrRevoked) || !lead.ID().IsZero() {
		t.Fatal("an identity that this process ended has ended")
	}
	_, err = lead.Spawn(t.Context(), "worker", Asked{})
	is(t, err, ErrRevoked, "ended")
	if _, err = lead.GetX509SVID(); !errors.Is(err, ErrRevoked) {
		t.Fatal(err)
	}
	until(t, func() bool { return worker.Err() != nil && clipped.Err() != nil })
	is(t, worker.Err(), ErrRevoked, "AGENT_ORPHANED")
	check(t, lead.End(t.Context()))
}

func TestATokenIsForWhatWasAskedAndCachedByThat(t *testing.T) {
	me := agent(t, "researcher", "demo", Asked{Scopes: []string{"files:read", "search:read"}})
	get := func(audience string, scopes ...string) string {
		text, err := me.Token(t.Context(), audience, scopes...)
		check(t, err)
		return text
	}
	svid, access := get(search), get(search, "search:read")
	same(t, claimsOf(svid)["sub"].(string), me.ID().String())
	claims := claimsOf(access)
	same(t, claims["client_id"].(string), me.ID().String())
	same(t, claims["scope"].(string)+" "+claims["aud"].(string), "search:read "+search)
	both := get(search, "search:read", "files:read")
	// One spelling of what is asked for: the order and repetitions do not matter.
	same(t, get(search, "files:read  search:read", "files:read"), both)
	same(t, claimsOf(get(search, ""))["scope"].(string), "files:read search:read")
	same(t, get(search), svid)
	same(t, get(search, "search:read"), access)
	if svid == access || both == access || get(files, "search:read") == access {
		t.Fatal("two questions have one token")
	}
	_, err := me.Token(t.Context(), search, "mail:send")
	is(t, err, ErrDenied, "SCOPE_NOT_ALLOWED")
	_, err = me.Token(t.Context(), "https://evil.example", "")
	is(t, err, ErrDenied, "AUDIENCE_NOT_ALLOWED")
	_, err = dev.workload.Token(t.Context(), search)
	is(t, err, ErrDenied, "ROLE_NOT_ALLOWED")
	// Who goes away takes nobody along.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = me.Token(gone, files); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	check(t, me.Err())
	// While the issuer is away, the cached one is returned.
	resume := pause(t)
	same(t, get(search), svid)
	resume()
}

func TestAnAssertionIsANewOneEachTime(t *testing.T) {
	me := agent(t, "researcher", "demo", Asked{})
	first, err := me.Token(t.Context(), search)
	check(t, err)
	iss := claimsOf(first)["iss"].(string)
	seen := map[string]bool{}
	for _, obtain := range []func() (string, error){
		func() (string, error) { return me.Assertion(t.Context(), iss) },
		func() (string, error) { return me.Assertion(t.Context(), iss) },
		// Also in the guise of a token: for the issuer it would be of use once.
		func() (string, error) { return me.Token(t.Context(), iss) },
		func() (string, error) { return me.Token(t.Context(), iss) },
	} {
		text, err := obtain()
		check(t, err)
		if seen[text] {
			t.Fatal("an assertion was given out twice")
		}
		seen[text] = true
	}
}

func TestARevokedAgentStopsAndNoCallLeavesTheProcess(t *testing.T) {
	me := agent(t, "researcher", "demo", Asked{})
	var seen []string
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		seen = append(seen, request.Header.Get("Authorization"))
	}))
	defer service.Close()
	client := http.Client{Transport: me.Transport(nil, search, "search:read")}
	response, err := client.Get(service.URL)
	check(t, err)
	check(t, response.Body.Close())
	token, err := me.Token(t.Context(), search, "search:read")
	check(t, err)
	same(t, strings.Join(seen, ","), "Bearer "+token)
	work, cancel := me.Context(t.Context())
	defer cancel()
	mayfly(t, "revoke", "--agent", me.ID().String())
	// Not cached: the issuer refuses, whether the news has come or not.
	if _, err = me.Token(t.Context(), files); !errors.Is(err, ErrRevoked) {
		t.Fatal(err)
	}
	<-work.Done()
	is(t, context.Cause(work), ErrRevoked, "AGENT_REVOKED")
	_, err = me.Token(t.Context(), search, "search:read")
	is(t, err, ErrRevoked, "AGENT_REVOKED")
	if _, err = client.Get(service.URL); !errors.Is(err, ErrRevoked) {
		t.Fatal(err)
	}
	same(t, len(seen), 1)
}

func TestAfterARedirectToAnotherOriginThereIsNoToken(t *testing.T) {
	me := agent(t, "researcher", "demo", Asked{})
	var stolen, ours []string
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		stolen = append(stolen, request.Header.Get("Authorization"))
	}))
	defer thief.Close()
	service := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		ours = append(ours, request.Header.Get("Authorization"))
		if request.URL.Path == "/" {
			http.Redirect(writer, request, "/again", http.StatusFound)
		} else {
			http.Redirect(writer, request, thief.URL, http.StatusTemporaryRedirect)
		}
	}))
	defer service.Close()
	response, err := (&http.Client{Transport: me.Transport(nil, search)}).Get(service.URL)
	check(t, err)
	check(t, response.Body.Close())
	if len(ours) != 2 || ours[0] == "" || ours[1] != ours[0] || !slices.Equal(stolen, []string{""}) {
		t.Fatalf("%d of our own, and %q", len(ours), stolen)
	}
}

func TestTwoUsersInOneProcessNeverShareAToken(t *testing.T) {
	agents := []*Identity{agent(t, "researcher", "demo", Asked{}), agent(t, "researcher", "guest", Asked{})}
	scopes := [][]string{nil, {"search:read"}, {""}}
	var each sync.WaitGroup
	wrong := make(chan string, 10_000)
	for worker := range 16 {
		each.Add(1)
		go func() {
			defer each.Done()
			for n := worker; n < 10_000; n += 16 {
				me, asked := agents[n%2], scopes[n%3]
				text, err := me.Token(context.Background(), search, asked...)
				claims := claimsOf(text)
				whose := claims["client_id"]
				if asked == nil {
					whose = claims["sub"]
				}
				if err != nil || whose != me.ID().String() {
					wrong <- text
				}
			}
		}()
	}
	each.Wait()
	if len(wrong) > 0 {
		t.Fatalf("%d tokens are of another agent or none, such as %s", len(wrong), <-wrong)
	}
}

func TestACertificateRotatesUnderUseAndNoCallFails(t *testing.T) {
	t.Parallel()
	me := agent(t, "quick", "demo", Asked{})
	child, err := me.Spawn(t.Context(), "quick", Asked{})
	check(t, err)
	seen := map[time.Time]bool{}
	for len(seen) < 4 {
		svid, err := me.GetX509SVID()
		check(t, err)
		seen[svid.Certificates[0].NotAfter] = true
		for _, one := range []*Identity{me, child} {
			// Past the cache: each is a call to the issuer.
			_, err := one.Assertion(t.Context(), search)
			check(t, err)
			_, _, err = one.keeper.exchange(t.Context(), search, nil, "")
			check(t, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, one := range []*Identity{me, child} {
		check(t, one.Err())
		same(t, stateOf(t, one.ID().String()), "live")
	}
}

func TestAnIssuerThatIsAwayIsWaitedForAndOneThatStaysAwayIsTheEnd(t *testing.T) {
	me := agent(t, "quick", "demo", Asked{})
	ends := func() time.Time {
		svid, err := me.GetX509SVID()
		check(t, err)
		return svid.Certificates[0].NotAfter
	}
	before := ends()
	resume := pause(t)
	time.Sleep(2 * time.Second)
	resume()
	until(t, func() bool { return ends().After(before) })
	resume = pause(t)
	until(t, func() bool { return me.Err() != nil })
	resume()
	is(t, me.Err(), ErrExpired, "expired")
}

func TestALeaseIsTheEnd(t *testing.T) {
	t.Parallel()
	me := agent(t, "researcher", "demo", Asked{Lease: 3 * time.Second})
	id := me.ID().String()
	work, cancel := me.Context(t.Context())
	defer cancel()
	select {
	case <-work.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("it outlived its lease")
	}
	is(t, context.Cause(work), ErrExpired, "expired")
	_, err := me.Token(t.Context(), search)
	is(t, err, ErrExpired, "expired")
	same(t, stateOf(t, id), "expired")
}
