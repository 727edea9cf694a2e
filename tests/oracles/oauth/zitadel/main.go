// zitadel/oidc: token exchange by an agent, and introspection by a resource server over mTLS, by a client that nobody here wrote.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/client"
	"github.com/zitadel/oidc/v3/pkg/client/rs"
	"github.com/zitadel/oidc/v3/pkg/client/tokenexchange"
	httphelper "github.com/zitadel/oidc/v3/pkg/http"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

const (
	mail     = "https://mail.example"
	resource = "spiffe://dev.mayfly.test/workload/mail-service"
)

var mayfly, issuer, agent = os.Args[1], os.Args[2], os.Args[3]

func run(arguments ...string) string {
	out, err := exec.Command(mayfly, arguments...).Output()
	check(err)
	return strings.TrimSpace(string(out))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// An agent: each request is proved by a JWT-SVID of its own.
type exchanger struct {
	endpoint string
	http     *http.Client
}

func (e exchanger) TokenEndpoint() string    { return e.endpoint }
func (e exchanger) HttpClient() *http.Client { return e.http }
func (e exchanger) AuthFn() (any, error) {
	return client.ClientAssertionFormAuthorization(run("mint", "--as", "a1", "--audience", issuer)), nil
}

// A resource server: its certificate proves it.
type server struct {
	endpoint string
	http     *http.Client
}

func (s server) IntrospectionURL() string { return s.endpoint }
func (s server) TokenEndpoint() string    { return "" }
func (s server) HttpClient() *http.Client { return s.http }
func (s server) AuthFn() (any, error) {
	return httphelper.FormAuthorization(func(form url.Values) { form.Set("client_id", resource) }), nil
}

func main() {
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(".mayfly/https-ca.pem")
	check(err)
	roots.AppendCertsFromPEM(ca)
	plain := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	ctx := context.Background()
	found, err := client.Discover(ctx, issuer, plain)
	check(err)
	asking := exchanger{found.TokenEndpoint, plain}
	exchange := func(token string, of oidc.TokenType, audience string, scopes ...string) (*oidc.TokenExchangeResponse, error) {
		return tokenexchange.ExchangeToken(ctx, asking, token, of, "", "", nil, []string{audience}, scopes, oidc.AccessTokenType)
	}
	user, err := os.ReadFile("demo.jwt")
	check(err)
	first, err := exchange(strings.TrimSpace(string(user)), oidc.IDTokenType, mail, "mail:send", "files:read")
	check(err)
	if first.IssuedTokenType != oidc.AccessTokenType || first.TokenType != "Bearer" || first.ExpiresIn > 300 {
		log.Fatalf("%+v", first)
	}
	// What was exchanged is exchanged again for less, and never for more.
	second, err := exchange(first.AccessToken, oidc.AccessTokenType, mail, "mail:send")
	check(err)
	var refused *oidc.Error
	if _, err := exchange(second.AccessToken, oidc.AccessTokenType, mail, "files:read"); !errors.As(err, &refused) {
		log.Fatalf("it widened: %v", err)
	}
	if refused.ErrorType != oidc.InvalidScope {
		log.Fatalf("refused with %v", refused)
	}

	pair, err := tls.LoadX509KeyPair(".mayfly/workloads/mail-service/svid.pem", ".mayfly/workloads/mail-service/key.pem")
	check(err)
	certified := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}}
	serving := server{os.Args[4], certified}
	said, err := rs.Introspect[*oidc.IntrospectionResponse](ctx, serving, second.AccessToken)
	check(err)
	if !said.Active || said.Subject != "dev|demo" || said.ClientID != agent || len(said.Scope) != 1 || said.Claims["act"] == nil {
		log.Fatalf("%+v", said)
	}
	run("revoke", "--agent", agent)
	said, err = rs.Introspect[*oidc.IntrospectionResponse](ctx, serving, second.AccessToken)
	check(err)
	if said.Active {
		log.Fatal("it outlives its agent")
	}
	fmt.Println("zitadel/oidc agrees")
}
