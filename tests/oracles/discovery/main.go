// go-oidc: finds the keys by the issuer's URL, verifies a token, prints its subject.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
)

func read(issuer, audience, file string) (string, error) {
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(".mayfly/https-ca.pem")
	if err != nil {
		return "", err
	}
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	ctx := oidc.ClientContext(context.Background(), client)
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return "", err
	}
	token, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	verified, err := provider.Verifier(&oidc.Config{ClientID: audience}).Verify(ctx, strings.TrimSpace(string(token)))
	if err != nil {
		return "", err
	}
	return verified.Subject, nil
}

func main() {
	subject, err := read(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(subject)
}
