// An orchestrator in Go, with gRPC alone: one agent acts for a user, and its child does a part of the work.
//
// Run the issuer in a terminal of its own, in the folder of this repository. PORT is that of `gRPC`, which `mayfly dev` prints.
// The stubs need a protoc; the one of `pip install grpcio-tools` is called `python -m grpc_tools.protoc`:
//
//	mayfly dev
//	mayfly token demo > demo.jwt
//	cd agent-sdk/examples/go
//	GOBIN=$PWD/bin go install tool
//	M=module=mayfly.dev/example,Mmayfly/v1/mayfly.proto=mayfly.dev/example/mayflyv1
//	M=$M,Mgoogle/rpc/status.proto=google.golang.org/genproto/googleapis/rpc/status
//	PATH=$PWD/bin:$PATH protoc -I ../../../proto --go_out=$M:. --go-grpc_out=$M:. mayfly/v1/mayfly.proto
//	go run . 127.0.0.1:PORT ../../../.mayfly/workloads/orchestrator ../../../demo.jwt
//
// This program ends before its certificates expire. A longer one calls `Renew` with a new key, well before `svid.expires_at`.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"

	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffegrpc/grpccredentials"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"mayfly.dev/example/mayflyv1"
)

const search = "https://search.example"

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "give: issuer's address, folder, file with the user's token")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address, folder, tokenFile string) error {
	userToken, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	// 1. The workload, with the identity it joined with.
	workload, err := load(folder)
	if err != nil {
		return err
	}
	asWorkload, done, err := workload.connect(address)
	if err != nil {
		return err
	}
	defer done()

	// 2. An agent for the user, with the scopes and the lifetime that the work needs. The answer includes its first token.
	lead, first, err := spawn(ctx, asWorkload, &mayflyv1.SpawnRequest{
		Class:        "researcher",
		UserToken:    strings.TrimSpace(string(userToken)),
		Scopes:       []string{"files:read", "search:read"},
		LeaseSeconds: 600,
		JwtAudience:  search,
	})
	if err != nil {
		return err
	}
	fmt.Println("lead", lead.svid.ID)
	fmt.Println("token", first.GetSpiffeId())

	// 3. A child, spawned with the agent's certificate. It acts for the same user, without their token.
	asLead, done, err := lead.connect(address)
	if err != nil {
		return err
	}
	defer done()
	worker, _, err := spawn(ctx, asLead, &mayflyv1.SpawnRequest{Class: "worker", Scopes: []string{"search:read"}})
	if err != nil {
		return err
	}
	fmt.Println("worker", worker.svid.ID)

	// 4. A token for the child. It is valid for minutes, so mint one when it is needed.
	asWorker, done, err := worker.connect(address)
	if err != nil {
		return err
	}
	defer done()
	minted, err := asWorker.MintJwt(ctx, &mayflyv1.MintJwtRequest{Audience: search})
	if err != nil {
		return err
	}
	fmt.Println("token", minted.GetSvid().GetSpiffeId())

	// 5. A denial has a reason, which is the same in every release.
	_, _, err = spawn(ctx, asLead, &mayflyv1.SpawnRequest{Class: "worker", Scopes: []string{"mail:send"}})
	info := reason(err)
	if info == nil {
		return fmt.Errorf("a worker may send mail, or something broke: %w", err)
	}
	fmt.Println("denied", status.Code(err), info.GetDomain(), info.GetReason())

	// 6. The work is done. Children of the lead that still live end with it.
	if _, err := asLead.End(ctx, &mayflyv1.EndRequest{Agent: worker.svid.ID.String()}); err != nil {
		return err
	}
	_, err = asLead.End(ctx, &mayflyv1.EndRequest{})
	return err
}

// An SVID with its key, and the roots that it trusts.
type identity struct {
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
}

// Reads the folder that `mayfly redeem` wrote.
func load(folder string) (*identity, error) {
	svid, err := x509svid.Load(filepath.Join(folder, "svid.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		return nil, err
	}
	bundle, err := x509bundle.Load(svid.ID.TrustDomain(), filepath.Join(folder, "bundle.pem"))
	return &identity{svid, bundle}, err
}

// Connects to the issuer by mTLS with this identity. It verifies the server's SPIFFE ID, not its host name.
func (i *identity) connect(address string) (mayflyv1.IdentitiesClient, func() error, error) {
	issuer, err := spiffeid.FromPath(i.svid.ID.TrustDomain(), "/issuer")
	if err != nil {
		return nil, nil, err
	}
	mtls := grpccredentials.MTLSClientCredentials(i.svid, i.bundle, tlsconfig.AuthorizeID(issuer))
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(mtls))
	if err != nil {
		return nil, nil, err
	}
	return mayflyv1.NewIdentitiesClient(connection), connection.Close, nil
}

// Spawns an agent with a new key, which never leaves this process.
func spawn(
	ctx context.Context, identities mayflyv1.IdentitiesClient, request *mayflyv1.SpawnRequest,
) (*identity, *mayflyv1.JwtSvid, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	request.Csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, err
	}
	got, err := identities.Spawn(ctx, request)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	// It refuses a certificate for another key, and one that is not an SVID.
	svid, err := x509svid.ParseRaw(slices.Concat(got.GetSvid().GetCertificates()...), pkcs8)
	if err != nil {
		return nil, nil, err
	}
	bundle, err := x509bundle.ParseRaw(svid.ID.TrustDomain(), slices.Concat(got.GetBundle().GetX509Authorities()...))
	return &identity{svid, bundle}, got.GetJwt(), err
}

// The google.rpc.ErrorInfo of a denial, or nil if it has none.
func reason(err error) *errdetails.ErrorInfo {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}
