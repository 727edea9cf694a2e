package mayfly

// Programs under `mayfly run`: who they are, their tokens, their children, and the end.

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
)

var programs = map[string]func() error{"asks": asks, "refused": refusedThere, "waits": waits, "clock": clock}

// Prints what it got for its questions.
func asks() error {
	ctx := context.Background()
	me, err := Current(ctx)
	if err != nil {
		return err
	}
	defer me.Close()
	seen := map[string]bool{}
	for _, scopes := range [][]string{nil, {"search:read"}, {"files:read"}, {""}, {"search:read"}} {
		text, err := me.Token(ctx, search, scopes...)
		if err != nil {
			return err
		}
		if claims := claimsOf(text); claims["client_id"] != me.ID().String() && claims["sub"] != me.ID().String() {
			return errors.New("a token is of another agent")
		}
		seen[text] = true
	}
	fmt.Println(len(seen), me.User().Sub)
	for _, audience := range []string{search, "https://evil.example"} {
		_, err := me.Token(ctx, audience, "no:such")
		fmt.Println(codeOf(err), errors.Is(err, ErrDenied))
	}
	if os.Getenv("MAYFLY_SERVER") == "" {
		_, err := me.Spawn(ctx, "worker", Asked{})
		fmt.Println(codeOf(err), errors.Is(err, ErrNoIdentity))
		return nil
	}
	child, err := me.Spawn(ctx, "worker", Asked{Scopes: []string{"search:read"}})
	if err != nil {
		return err
	}
	defer child.Close()
	said, err := child.Binding()
	if err != nil {
		return err
	}
	_, err = child.Token(ctx, search)
	fmt.Println(said.Parent() == me.ID().String(), err)
	return child.End(ctx)
}

func TestUnderMayflyRunAProgramHasTokensAndChildren(t *testing.T) {
	const asked = "4 demo\nSCOPE_NOT_ALLOWED true\nAUDIENCE_NOT_ALLOWED true\n"
	out, err := run(t, "researcher", "asks", "MAYFLY_SERVER="+dev.address).Output()
	check(t, err)
	same(t, string(out), asked+"true <nil>\n")
	// Without the issuer's address, tokens come from its URL, with the roots of the system.
	out, err = run(t, "researcher", "asks", "SSL_CERT_FILE="+filepath.Join(dev.folder, ".mayfly/https-ca.pem")).Output()
	check(t, err)
	same(t, string(out), asked+"no_issuer true\n")
}

// Prints why it gets no token.
func refusedThere() error {
	ctx := context.Background()
	me, err := Current(ctx)
	if err != nil {
		return err
	}
	defer me.Close()
	_, err = me.Token(ctx, search, "")
	fmt.Println(codeOf(err), errors.Is(err, ErrUnusable))
	return nil
}

func TestNobodyButTheIssuerHearsTheProofOfAnAgent(t *testing.T) {
	// By its URL, without its root.
	out, err := run(t, "researcher", "refused").Output()
	check(t, err)
	same(t, string(out), "untrusted true\n")
	// An agent in the issuer's place.
	impostor := agent(t, "researcher", "demo", Asked{})
	listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.TLSServerConfig(impostor))
	check(t, err)
	defer listener.Close()
	heard := make(chan int, 1)
	go func() {
		accepted, err := listener.Accept()
		if err != nil {
			return
		}
		defer accepted.Close()
		_ = accepted.SetDeadline(time.Now().Add(20 * time.Second))
		n, _ := accepted.Read(make([]byte, 1))
		heard <- n
	}()
	out, err = run(t, "researcher", "refused", "MAYFLY_SERVER="+listener.Addr().String()).Output()
	check(t, err)
	same(t, string(out), "untrusted true\n")
	same(t, <-heard, 0)
}

func TestAnIssuerThatIsSilentHasItsTime(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer silent.Close()
	at, err := endpoint("https://issuer.example", silent.Addr().String())
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, _, err = ask(ctx, at, "a.b.c", search, nil, nil)
	is(t, err, ErrUnavailable, "unavailable")
}

// Uses its identity over three lives of its certificate, then waits for its end.
func waits() error {
	ctx := context.Background()
	me, err := Current(ctx)
	if err != nil {
		return err
	}
	defer me.Close()
	fmt.Println(me.ID())
	for seen := map[time.Time]bool{}; len(seen) < 3; time.Sleep(50 * time.Millisecond) {
		svid, err := me.GetX509SVID()
		if err != nil {
			return err
		}
		seen[svid.Certificates[0].NotAfter] = true
		if _, _, err := me.keeper.exchange(ctx, search, []string{"search:read"}, ""); err != nil {
			return err
		}
	}
	if _, err := me.Token(ctx, search, "search:read"); err != nil {
		return err
	}
	work, cancel := me.Context(ctx)
	defer cancel()
	fmt.Println("rotated")
	<-work.Done()
	_, err = me.Token(ctx, search, "search:read")
	fmt.Println(codeOf(context.Cause(work)), errors.Is(err, ErrRevoked))
	return nil
}

func TestUnderMayflyRunAnIdentityRotatesAndARevocationEndsIt(t *testing.T) {
	t.Parallel()
	command := run(t, "quick", "waits", "MAYFLY_SERVER="+dev.address)
	out, err := command.StdoutPipe()
	check(t, err)
	check(t, command.Start())
	lines := bufio.NewScanner(out)
	next := func() string {
		if !lines.Scan() {
			t.Fatal("the program ended early")
		}
		return lines.Text()
	}
	id := next()
	if !strings.HasPrefix(id, domain+"/agent/quick/") {
		t.Fatal(id)
	}
	same(t, next(), "rotated")
	same(t, stateOf(t, id), "live")
	mayfly(t, "revoke", "--agent", id)
	same(t, next(), "withdrawn true")
	_ = command.Wait()
}

func TestWithoutAnIdentityTheErrorSaysHowToGetOne(t *testing.T) {
	_, err := Current(t.Context())
	is(t, err, ErrNoIdentity, "no_identity")
	if !strings.Contains(err.Error(), "mayfly run") {
		t.Fatal(err)
	}
	for _, bad := range []string{"unix:a.sock", "unix://", "tcp://localhost:80", "http://127.0.0.1", "/run/x.sock"} {
		_, err := Current(t.Context(), WithSocket(bad))
		is(t, err, ErrUnusable, "endpoint")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = Current(ctx, WithSocket("unix:///tmp/there-is-no-such.sock"))
	is(t, err, ErrUnavailable, "unavailable")
	for _, folder := range []string{"none", t.TempDir(), filepath.Join(dev.folder, ".mayfly")} {
		_, err := OpenWorkload(folder)
		is(t, err, ErrUnusable, "folder")
	}
	token := filepath.Join(t.TempDir(), "user.jwt")
	check(t, os.WriteFile(token, []byte(mayfly(t, "token", "demo")), 0o600))
	folder := t.TempDir()
	mayfly(t, "spawn", "--class", "researcher", "--user-token", token, "--out", folder)
	_, err = OpenWorkload(folder)
	is(t, err, ErrUnusable, "not_a_workload")
}

// Sets its clock forward: to where its certificate has to be renewed, and then past its end.
func clock() error {
	var step atomic.Int64
	now = func() time.Time { return time.Now().Add(time.Duration(step.Load())) }
	ctx := context.Background()
	workload, err := OpenWorkload(os.Getenv("WORKLOAD"))
	if err != nil {
		return err
	}
	defer workload.Close()
	me, err := workload.Spawn(ctx, "researcher", Asked{UserToken: os.Getenv("USER_TOKEN")})
	if err != nil {
		return err
	}
	defer me.Close()
	svid, err := me.GetX509SVID()
	if err != nil {
		return err
	}
	before := svid.Certificates[0].NotAfter
	// It has chosen when to renew by then.
	time.Sleep(time.Second)
	step.Store(int64(12 * time.Minute))
	for deadline := time.Now().Add(25 * time.Second); svid.Certificates[0].NotAfter.Equal(before); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("it was not renewed in time")
		}
		if svid, err = me.GetX509SVID(); err != nil {
			return err
		}
	}
	if _, err := me.Token(ctx, search); err != nil {
		return err
	}
	fmt.Println("renewed")
	step.Store(int64(time.Hour))
	_, err = me.Token(ctx, search)
	fmt.Println(codeOf(err), errors.Is(err, ErrExpired))
	return nil
}

func TestAClockThatIsSetForwardRenewsAtOnceAndPastTheEndNothingIsGivenOut(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(dev.folder, ".mayfly/workloads/orchestrator")
	out, err := run(t, "researcher", "clock", "WORKLOAD="+folder, "USER_TOKEN="+mayfly(t, "token", "demo")).Output()
	check(t, err)
	same(t, string(out), "renewed\nexpired true\n")
}
