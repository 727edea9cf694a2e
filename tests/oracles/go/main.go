// go-spiffe reads both credentials of the agent in a folder, and the bundle beside them.
package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func main() {
	folder, id, audience := os.Args[1], os.Args[2], os.Args[3]
	want := spiffeid.RequireFromString(id)
	bundle, err := spiffebundle.Load(want.TrustDomain(), filepath.Join(folder, "bundle.json"))
	check(err)
	if _, ok := bundle.SequenceNumber(); !ok {
		check(fmt.Errorf("the bundle has no sequence"))
	}
	if _, ok := bundle.RefreshHint(); !ok {
		check(fmt.Errorf("the bundle has no refresh hint"))
	}
	svid, err := x509svid.Load(filepath.Join(folder, "svid.pem"), filepath.Join(folder, "key.pem"))
	check(err)
	got, _, err := x509svid.Verify(svid.Certificates, bundle)
	check(err)
	same(got, want)
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		found := false
		for _, have := range svid.Certificates[0].ExtKeyUsage {
			found = found || have == usage
		}
		if !found {
			check(fmt.Errorf("extended key usage %v is missing", usage))
		}
	}
	text, err := os.ReadFile(filepath.Join(folder, "svid.jwt"))
	check(err)
	token, err := jwtsvid.ParseAndValidate(strings.TrimSpace(string(text)), bundle, []string{audience})
	check(err)
	same(token.ID, want)
	fmt.Println("go: both hold")
}

func same(got, want spiffeid.ID) {
	if got != want {
		check(fmt.Errorf("%s is not %s", got, want))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
