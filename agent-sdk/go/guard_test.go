package mayfly

// Services that verify: what the guard says, through net/http, gRPC and TLS, and what happens when it is away or lies.

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffegrpc/grpccredentials"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func guardOf(t *testing.T, audience string) *Guard {
	t.Helper()
	guard, err := NewGuard("unix:"+guardSocket(), audience)
	check(t, err)
	return guard
}

func verifier(t *testing.T, audience string) *Verifier {
	t.Helper()
	bundle, err := spiffebundle.Load(spiffeid.RequireTrustDomainFromString("dev.mayfly.test"), filepath.Join(dev.folder, "g/bundle.json"))
	check(t, err)
	return &Verifier{bundle, guardOf(t, audience)}
}

func refusedAs(t *testing.T, err error, status int, code string) {
	t.Helper()
	var refused *Refused
	if !errors.As(err, &refused) || refused.Status != status || refused.Code != code {
		t.Fatalf("%v is not %d %s", err, status, code)
	}
}

func TestAServiceLetsInAgentsWithItsScopesUntilTheyAreRevoked(t *testing.T) {
	me := agent(t, "researcher", "demo", Asked{Scopes: []string{"search:read"}})
	for _, checker := range []Checker{guardOf(t, search), verifier(t, search)} {
		same(t, serves(t, checker, me, "search:read"), "200 demo")
		same(t, serves(t, checker, me, "search:read", "mail:send"), "403 SCOPE_MISSING")
	}
	text, err := me.Token(t.Context(), search)
	check(t, err)
	caller, err := guardOf(t, search).Check(t.Context(), text)
	check(t, err)
	same(t, caller.AgentID, me.ID().String())
	same(t, caller.Chain[0]+" "+caller.Mode, domain+"/workload/orchestrator delegated")
	_, err = guardOf(t, files).Check(t.Context(), text)
	refusedAs(t, err, 401, "CREDENTIAL_AUDIENCE")
	_, err = verifier(t, files).Check(t.Context(), text)
	refusedAs(t, err, 401, "CREDENTIAL_UNTRUSTED")
	for _, bad := range []string{"", "a.b.c", strings.Repeat("a", 20_000), text[:len(text)-4] + "AAAA"} {
		for _, checker := range []Checker{guardOf(t, search), verifier(t, search)} {
			_, err := checker.Check(t.Context(), bad)
			var refused *Refused
			if !errors.As(err, &refused) || refused.Status != 401 {
				t.Fatalf("%.40s: %v", bad, err)
			}
		}
	}
	mayfly(t, "revoke", "--agent", me.ID().String())
	for _, checker := range []Checker{guardOf(t, search), verifier(t, search)} {
		until(t, func() bool {
			_, err := checker.Check(t.Context(), text)
			return err != nil
		})
		_, err = checker.Check(t.Context(), text)
		refusedAs(t, err, 401, "CREDENTIAL_REVOKED")
	}
}

// What a service answers to a request of this agent: the status, and the user or the reason.
func serves(t *testing.T, checker Checker, me *Identity, scopes ...string) string {
	t.Helper()
	service := httptest.NewServer(Require(checker, scopes...)(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		caller, found := CallerOf(request.Context())
		if !found {
			panic("nobody")
		}
		_, _ = io.WriteString(writer, caller.User.Sub)
	})))
	defer service.Close()
	response, err := (&http.Client{Transport: me.Transport(nil, search)}).Get(service.URL)
	check(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check(t, err)
	if response.StatusCode == http.StatusOK {
		return "200 " + string(body)
	}
	var said struct{ Error string }
	check(t, json.Unmarshal(body, &said))
	same(t, response.Header.Get("Mayfly-Reason"), said.Error)
	if response.StatusCode != http.StatusServiceUnavailable && response.Header.Get("WWW-Authenticate") == "" {
		t.Fatal("there is no challenge")
	}
	return response.Status[:3] + " " + said.Error
}

func TestARequestShowsOneTokenInOneHeader(t *testing.T) {
	handler := Require(guardOf(t, search))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was let in") }))
	for _, c := range []struct {
		headers []string
		code    string
	}{
		{nil, "CREDENTIAL_MISSING"},
		{[]string{""}, "TOKEN_MALFORMED"},
		{[]string{"Basic a"}, "TOKEN_MALFORMED"},
		{[]string{"Bearer"}, "TOKEN_MALFORMED"},
		{[]string{"Bearer a b"}, "TOKEN_MALFORMED"},
		{[]string{"Bearer a,b"}, "TOKEN_MALFORMED"},
		{[]string{"Bearer a", "Bearer b"}, "TOKEN_MALFORMED"},
		{[]string{"Bearer " + strings.Repeat("a", longestToken+1)}, "TOKEN_MALFORMED"},
	} {
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.Header["Authorization"] = c.headers
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		same(t, answer.Code, 401)
		same(t, answer.Header().Get("Mayfly-Reason"), c.code)
	}
}

func TestWithoutAGuardOrWithOneThatLiesNobodyPasses(t *testing.T) {
	me := agent(t, "researcher", "demo", Asked{})
	text, err := me.Token(t.Context(), search)
	check(t, err)
	gone, err := NewGuard("unix:/tmp/there-is-no-such.sock", search)
	check(t, err)
	_, err = gone.Check(t.Context(), text)
	refusedAs(t, err, 503, "GUARD_UNAVAILABLE")
	if !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	same(t, serves(t, gone, me), "503 GUARD_UNAVAILABLE")
	whole := `{"decision":true,"agent_id":"a","user":null,"chain":["w"],"scopes":["x"],"delegation_id":null,"mode":"autonomous","expires_at":"2030-01-01T00:00:00Z","revision":1}`
	for _, c := range []struct {
		status int
		body   string
		want   int
	}{
		{200, whole, 0},
		{403, whole, 503},
		{500, whole, 503},
		{302, whole, 503},
		{200, "", 503},
		{200, "[]", 503},
		{200, "null", 503},
		{200, `{"decision":"true"}`, 503},
		{200, strings.Replace(whole, `"agent_id":"a"`, `"agent_id":null`, 1), 403},
		{200, strings.Replace(whole, `"agent_id":"a"`, `"agent_id":""`, 1), 503},
		{200, strings.Replace(whole, `"user":null`, `"user":{"iss":"i"}`, 1), 503},
		{200, strings.Replace(whole, `"scopes":["x"]`, `"scopes":null`, 1), 503},
		{200, strings.Replace(whole, `"scopes":["x"]`, `"scopes":[]`, 1), 403},
		{200, strings.Replace(whole, `,"revision":1`, ``, 1), 503},
		{200, strings.Replace(whole, `2030-01-01T00:00:00Z`, `soon`, 1), 503},
		{403, `{"decision":false,"reason":"CREDENTIAL_STALE"}`, 503},
		{403, `{"decision":false,"reason":"CREDENTIAL_REVOKED"}`, 401},
		{403, `{"decision":false,"reason":"CALLER_NOT_AUTHORIZED"}`, 403},
		{403, `{"decision":false}`, 503},
		{400, `{"error":"x"}`, 401},
	} {
		liar := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
			writer.Header().Set("Location", "/")
			writer.WriteHeader(c.status)
			_, _ = io.WriteString(writer, c.body)
		}))
		guard, err := NewGuard(strings.TrimPrefix(liar.URL, "http://"), search)
		check(t, err)
		_, err = guard.Check(t.Context(), "a.b.c", "x")
		liar.Close()
		var refused *Refused
		if got := errors.As(err, &refused); got != (c.want != 0) || (got && refused.Status != c.want) {
			t.Fatalf("%d %s: %v is not %d", c.status, c.body, err, c.want)
		}
	}
	for _, bad := range []string{"", "unix:", "unix:guard.sock", "10.0.0.1:80", "localhost", "http://127.0.0.1:80", "127.0.0.1:80/x"} {
		_, err := NewGuard(bad, search)
		is(t, err, ErrUnusable, "guard")
	}
	_, err = NewGuard("127.0.0.1:80", "")
	is(t, err, ErrUnusable, "audience")
}

func TestInMutualTLSTheSPIFFEIDDecidesAndWhoeverWasRevokedDoesNotPass(t *testing.T) {
	server, client := agent(t, "researcher", "demo", Asked{}), agent(t, "worker", "demo", Asked{Scopes: []string{"search:read"}})
	guard := guardOf(t, search)
	shake := func(as *Identity, peer tlsconfig.Authorizer, scopes ...string) error {
		listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(server, server, guard.Authorize(scopes...)))
		check(t, err)
		defer listener.Close()
		served := make(chan error, 1)
		go func() {
			accepted, err := listener.Accept()
			if err == nil {
				err = accepted.(*tls.Conn).HandshakeContext(context.Background())
				accepted.Close()
			}
			served <- err
		}()
		opened, err := tls.Dial("tcp", listener.Addr().String(), tlsconfig.MTLSClientConfig(as, as, peer))
		if err != nil {
			<-served
			return err
		}
		defer opened.Close()
		return <-served
	}
	check(t, shake(client, tlsconfig.AuthorizeID(server.ID()), "search:read"))
	if err := shake(client, tlsconfig.AuthorizeID(client.ID())); err == nil {
		t.Fatal("another server was taken for the one that was asked for")
	}
	refusedAs(t, shake(client, tlsconfig.AuthorizeAny(), "mail:send"), 403, "SCOPE_MISSING")
	refusedAs(t, shake(dev.workload, tlsconfig.AuthorizeAny()), 403, "CALLER_NOT_AN_AGENT")
	// As a source of another program, which does not hear of it.
	kept, err := client.GetX509SVID()
	check(t, err)
	mayfly(t, "revoke", "--agent", client.ID().String())
	until(t, func() bool {
		_, err := guard.CheckPeer(t.Context(), kept.Certificates)
		return err != nil
	})
	_, err = guard.CheckPeer(t.Context(), kept.Certificates)
	refusedAs(t, err, 401, "CREDENTIAL_REVOKED")
	if err := shake(client, tlsconfig.AuthorizeAny()); err == nil {
		t.Fatal("a revoked agent passed")
	}
}

func TestCallsOfGRPCCarryATokenAndAreChecked(t *testing.T) {
	me, service := agent(t, "worker", "demo", Asked{Scopes: []string{"search:read"}}), agent(t, "researcher", "demo", Asked{})
	const one, watch = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
	serve := func(checker Checker, methods Methods) grpc_health_v1.HealthClient {
		server := grpc.NewServer(
			grpc.Creds(grpccredentials.TLSServerCredentials(service)),
			grpc.UnaryInterceptor(Unary(checker, methods)), grpc.StreamInterceptor(Stream(checker, methods)))
		grpc_health_v1.RegisterHealthServer(server, health.NewServer())
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(server.Stop)
		connection, err := grpc.NewClient("passthrough:///"+listener.Addr().String(),
			grpc.WithTransportCredentials(grpccredentials.TLSClientCredentials(me, tlsconfig.AuthorizeID(service.ID()))),
			grpc.WithPerRPCCredentials(me.Credentials(search)))
		check(t, err)
		t.Cleanup(func() { connection.Close() })
		return grpc_health_v1.NewHealthClient(connection)
	}
	asks := func(client grpc_health_v1.HealthClient, want codes.Code, reason string) {
		t.Helper()
		var trailer metadata.MD
		_, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}, grpc.Trailer(&trailer))
		same(t, status.Code(err), want)
		same(t, strings.Join(trailer.Get("mayfly-reason"), ","), reason)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		check(t, err)
		_, err = stream.Recv()
		same(t, status.Code(err), want)
	}
	guard := guardOf(t, search)
	asks(serve(guard, Methods{one: {"search:read"}, watch: nil}), codes.OK, "")
	asks(serve(guard, Methods{one: {"mail:send"}, watch: {"mail:send"}}), codes.PermissionDenied, "SCOPE_MISSING")
	asks(serve(guard, Methods{}), codes.PermissionDenied, "CALLER_NOT_AUTHORIZED")
	asks(serve(guardOf(t, files), Methods{one: nil, watch: nil}), codes.Unauthenticated, "CREDENTIAL_AUDIENCE")
	gone, err := NewGuard("unix:/tmp/there-is-no-such.sock", search)
	check(t, err)
	asks(serve(gone, Methods{one: nil, watch: nil}), codes.Unavailable, "GUARD_UNAVAILABLE")
	// Revoked: the call does not leave the process.
	client := serve(guard, Methods{one: nil, watch: nil})
	mayfly(t, "revoke", "--agent", me.ID().String())
	until(t, func() bool { return me.Err() != nil })
	_, err = client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err == nil || !strings.Contains(err.Error(), "AGENT_REVOKED") {
		t.Fatal(err)
	}
}
