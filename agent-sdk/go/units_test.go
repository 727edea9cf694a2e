package mayfly

// What needs no issuer: pauses, the cache, and that codes and answers are read as they are meant.

import (
	"context"
	"errors"
	"maps"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestPausesAndLimitsAreThoseOfTheContract(t *testing.T) {
	page, err := os.ReadFile("../docs/contract.md")
	check(t, err)
	number := func(text string) float64 {
		n, err := strconv.ParseFloat(text, 64)
		check(t, err)
		return n
	}
	seconds := func(n float64) time.Duration { return part(time.Second, n) }
	pauses := map[string]func(given, chance float64) time.Duration{
		"renewal": func(given, chance float64) time.Duration { return renewal(seconds(given), chance) },
		"again":   func(given, chance float64) time.Duration { return again(seconds(given), chance) },
		"back":    func(given, chance float64) time.Duration { return back(seconds(given), chance) },
		"calls":   func(given, chance float64) time.Duration { return calls(int(given), chance) },
		"streams": func(given, chance float64) time.Duration { return streams(int(given), chance) },
	}
	seen := map[string]bool{}
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([0-9.]+) \\| ([0-9.]+) \\| ([0-9.]+) \\|$")
	for _, row := range rows.FindAllStringSubmatch(string(page), -1) {
		seen[row[1]] = true
		for chance, want := range map[float64]string{0: row[3], 1: row[4]} {
			same(t, pauses[row[1]](number(row[2]), chance).Round(time.Microsecond), seconds(number(want)).Round(time.Microsecond))
		}
	}
	same(t, len(seen), len(pauses))
	limits := map[string]float64{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([0-9.]+) \\|$").FindAllStringSubmatch(string(page), -1) {
		limits[row[1]] = number(row[2])
	}
	ours := map[string]float64{
		"look": look.Seconds(), "stood": stood.Seconds(), "patience": patience.Seconds(), "tries": tries, "tokens": most, "last": last.Seconds(),
	}
	if !maps.Equal(limits, ours) {
		t.Fatalf("%v are not %v", ours, limits)
	}
	same(t, streams(1<<40, 1), 5*time.Second)
	for range 1000 {
		if n := chance(); n < 0 || n > 1 {
			t.Fatal(n)
		}
	}
}

func TestFinalAreTheCodesThatTheTableOfReasonsCallsFinal(t *testing.T) {
	page, err := os.ReadFile("../docs/reasons.md")
	check(t, err)
	rows := regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|.*\\| ([a-z ]*) \\|$").FindAllStringSubmatch(string(page), -1)
	if len(rows) < 100 {
		t.Fatalf("%d rows", len(rows))
	}
	found := map[string]bool{}
	for _, row := range rows {
		if regexp.MustCompile(`\bfinal\b`).MatchString(row[2]) {
			found[row[1]] = final[row[1]]
		}
	}
	if !maps.Equal(found, final) {
		t.Fatalf("%v are not %v", final, found)
	}
}

func TestATokenIsGivenOutUntilHalfAndKeptForNeedUntilItsEnd(t *testing.T) {
	began := time.Unix(1000, 0)
	c, now := newCache(), began
	c.now = func() time.Time { return now }
	of := func(audience string) key { return key{audience: audience} }
	c.put(of("a"), "one", began.Add(300*time.Second))
	for at, want := range map[int]string{0: "one one", 149: "one one", 150: " one", 294: " one", 295: " "} {
		now = began.Add(time.Duration(at) * time.Second)
		held := func(text string, found bool) string {
			if !found {
				return ""
			}
			return text
		}
		same(t, held(c.fresh(of("a")))+" "+held(c.holding(of("a"))), want)
	}
	now = began
	for n := range 200 {
		c.put(of(strconv.Itoa(n)), "x", began.Add(time.Duration(100+n)*time.Second))
	}
	same(t, len(c.tokens), most)
	if _, found := c.fresh(of("199")); !found {
		t.Fatal("the nearest end makes room")
	}
	access, _ := keyOf("199", []string{""})
	if _, found := c.fresh(access); found {
		t.Fatal("a JWT-SVID was given out for an access token")
	}
	c.put(access, "y", began.Add(time.Minute*10))
	c.forgetAccess()
	if _, found := c.fresh(access); found || len(c.tokens) != most-1 {
		t.Fatal("a renewal forgets access tokens and no others")
	}
	// {"alg":"ES256"}.{"iss":"https://issuer.example"}
	proof := "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIn0.c2ln"
	c.put(of("https://issuer.example"), proof, began.Add(time.Hour))
	if _, found := c.holding(of("https://issuer.example")); found {
		t.Fatal("a proof that counts once is kept")
	}
	// {"jti":"1","iat":1,"single_use":true}, and the same with false.
	c.put(of("once"), "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiIxIiwiaWF0IjoxLCJzaW5nbGVfdXNlIjp0cnVlfQ.c2ln", began.Add(time.Hour))
	c.put(of("often"), "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiIxIiwiaWF0IjoxLCJzaW5nbGVfdXNlIjpmYWxzZX0.c2ln", began.Add(time.Hour))
	_, once := c.holding(of("once"))
	if _, often := c.fresh(of("often")); once || !often {
		t.Fatal("a token for a single use is kept, or another is not")
	}
	for _, text := range []string{"", "a", "a.b", "a.!.c", "a.W10.c", "a.e30", "a.bnVsbA.c", "a.e30.c.d"} {
		same(t, len(claimsOf(text)), 0)
	}
}

func TestWhoeverWaitsForATokenThatIsForASingleUseGetsOneOfItsOwn(t *testing.T) {
	c, obtain, asked := newCache(), make(chan struct{}), atomic.Int32{}
	slow := func() (string, time.Time, error) {
		asked.Add(1)
		<-obtain
		return "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiIxIiwiaWF0IjoxLCJzaW5nbGVfdXNlIjp0cnVlfQ.c2ln", time.Now().Add(time.Hour), nil
	}
	results := make(chan error, 2)
	for range 2 {
		go func() { _, err := c.once(t.Context(), key{}, slow); results <- err }()
	}
	until(t, func() bool { return asked.Load() == 1 })
	close(obtain)
	if err := errors.Join(<-results, <-results); err != nil || asked.Load() != 2 {
		t.Fatal(err, asked.Load())
	}
}

func TestOneObtainsATokenAndWhoeverGoesAwayTakesNobodyAlong(t *testing.T) {
	c, obtain, asked := newCache(), make(chan struct{}), 0
	slow := func() (string, time.Time, error) {
		asked++
		<-obtain
		return "text", time.Now().Add(time.Hour), nil
	}
	gone, leave := context.WithCancel(t.Context())
	results := make(chan error, 2)
	go func() { _, err := c.once(gone, key{}, slow); results <- err }()
	until(t, func() bool { c.mutex.Lock(); defer c.mutex.Unlock(); return len(c.obtaining) == 1 })
	go func() { _, err := c.once(t.Context(), key{}, slow); results <- err }()
	leave()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(obtain)
	check(t, <-results)
	text, _ := c.fresh(key{})
	same(t, text, "text")
	same(t, asked, 1)
}

func TestAStatusIsReadByItsReason(t *testing.T) {
	with := func(code codes.Code, reason string, after time.Duration) error {
		told, err := status.New(code, "text").WithDetails(&errdetails.ErrorInfo{Reason: reason}, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
		check(t, err)
		return told.Err()
	}
	for _, c := range []struct {
		err  error
		kind error
		code string
	}{
		{with(codes.Unauthenticated, "AGENT_REVOKED", 0), ErrRevoked, "AGENT_REVOKED"},
		{with(codes.Unauthenticated, "AGENT_EXPIRED", 0), ErrExpired, "AGENT_EXPIRED"},
		// Under another status, or with a code that is unknown, only the one call has failed.
		{with(codes.PermissionDenied, "AGENT_REVOKED", 0), ErrDenied, "AGENT_REVOKED"},
		{with(codes.Unauthenticated, "NEW_CODE", 0), ErrDenied, "NEW_CODE"},
		{with(codes.ResourceExhausted, "LIMIT", time.Second), ErrDenied, "LIMIT"},
		{status.Error(codes.Unavailable, "away"), ErrUnavailable, "unavailable"},
		{status.Error(codes.Unavailable, "x509svid: could not verify"), ErrUnusable, "untrusted"},
		{context.DeadlineExceeded, ErrUnavailable, "unavailable"},
		{errors.New("other"), ErrUnavailable, "unavailable"},
	} {
		is(t, errorOf(c.err), c.kind, c.code)
	}
	same(t, transient(errorOf(with(codes.ResourceExhausted, "LIMIT", time.Second))), true)
	same(t, transient(errorOf(with(codes.PermissionDenied, "NO", 0))), false)
	for _, c := range []struct {
		status             int
		error, said, retry string
		kind               error
		code               string
		after              time.Duration
	}{
		{400, "invalid_scope", "SCOPE_NOT_ALLOWED: ask for less", "", ErrDenied, "SCOPE_NOT_ALLOWED", 0},
		{400, "invalid_request", "`grant_type` is missing", "", ErrDenied, "invalid_request", 0},
		{404, "", "", "", ErrDenied, "404", 0},
		{401, "invalid_client", "AGENT_REVOKED: it was revoked", "", ErrRevoked, "AGENT_REVOKED", 0},
		{401, "invalid_client", "CREDENTIAL_EXPIRED: the JWT-SVID", "", ErrDenied, "CREDENTIAL_EXPIRED", 0},
		{429, "temporarily_unavailable", "LIMIT: slower", "3", ErrDenied, "LIMIT", 3 * time.Second},
		{503, "temporarily_unavailable", "", "-1", ErrUnavailable, "unavailable", 0},
	} {
		err := refusal(c.status, c.error, c.said, c.retry)
		is(t, err, c.kind, c.code)
		same(t, err.(*Error).RetryAfter, c.after)
	}
	for _, bad := range []string{"", "http://issuer.example", "issuer", "https://", "https://i.example?x=1", "https://i.example#x", "spiffe://td", "https://a@i.example"} {
		_, err := endpoint(bad, "")
		is(t, err, ErrUnusable, "answer")
	}
	at, err := endpoint("https://issuer.example/a/", "[::1]:1")
	check(t, err)
	same(t, at.String(), "https://[::1]:1/a/oauth/token")
}
