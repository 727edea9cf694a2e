package mayfly

// Where the identity of this program comes from: `mayfly run` or another Workload API, or the folder of a workload.

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// Option says more about where an identity comes from.
type Option func(*options)

type options struct{ socket, server string }

// WithSocket names the Workload API, as unix:///path; by default SPIFFE_ENDPOINT_SOCKET does.
func WithSocket(address string) Option { return func(o *options) { o.socket = address } }

// WithServer says where the issuer is, as host:port; by default MAYFLY_SERVER, the folder, or the home (MAYFLY_HOME) does.
func WithServer(address string) Option { return func(o *options) { o.server = address } }

// Current is the identity of this program: that of `mayfly run`, or of another Workload API. Close it.
//
// It waits for one as long as ctx allows, and ten seconds at most. The kinds of its errors are ErrNoIdentity, ErrUnavailable and
// ErrUnusable.
func Current(ctx context.Context, with ...Option) (*Identity, error) {
	o := read(with, "")
	if o.socket == "" {
		return nil, wrong(ErrNoIdentity, "no_identity", "start this program with `mayfly run --class CLASS -- …`, or name a Workload API")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := workloadapi.ValidateAddress(o.socket); err != nil {
		return nil, wrong(ErrUnusable, "endpoint", "`%s` is not the address of a Workload API: %v", o.socket, err)
	}
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(o.socket), workloadapi.WithBackoffStrategy(pauses{}))
	if err != nil {
		return nil, wrong(ErrUnusable, "endpoint", "`%s` is not the address of a Workload API: %v", o.socket, err)
	}
	return serve(ctx, client, o.server)
}

// OpenWorkload is the identity of a workload, which spawns agents, from the folder that `mayfly redeem` wrote. Its certificate is used
// as it is and renewed in memory. Close it. The kinds of its errors are ErrNoIdentity, ErrUnusable and ErrExpired.
func OpenWorkload(folder string, with ...Option) (*Identity, error) {
	o := read(with, folder)
	svid, err := x509svid.Load(filepath.Join(folder, "svid.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		return nil, wrong(ErrUnusable, "folder", "`%s` holds no identity: %v", folder, err)
	}
	if isAgent(svid.ID) {
		return nil, wrong(ErrUnusable, "not_a_workload", "`%s` is an agent: start its program with `mayfly run --as %s`", svid.ID, folder)
	}
	if !now().Before(svid.Certificates[0].NotAfter) {
		return nil, wrong(ErrExpired, "expired", "the certificate in `%s` has expired: join again", folder)
	}
	bundle, err := x509bundle.Load(svid.ID.TrustDomain(), filepath.Join(folder, "bundle.pem"))
	if err != nil {
		return nil, wrong(ErrUnusable, "folder", "`%s` holds no bundle: %v", folder, err)
	}
	if o.server == "" {
		return nil, noIssuer()
	}
	return own(o.server, &current{svid: svid, bundles: x509bundle.NewSet(bundle)}, time.Time{})
}

func noIssuer() error {
	return wrong(ErrNoIdentity, "no_issuer", "it is not known where the issuer is: set MAYFLY_SERVER=host:port, or give WithServer")
}

func read(with []Option, folder string) options {
	o := options{socket: os.Getenv("SPIFFE_ENDPOINT_SOCKET"), server: os.Getenv("MAYFLY_SERVER")}
	for _, option := range with {
		option(&o)
	}
	if o.server == "" && folder != "" {
		text, _ := os.ReadFile(filepath.Join(folder, "issuer"))
		o.server = strings.TrimSpace(string(text))
	}
	homes := []string{os.Getenv("MAYFLY_HOME")}
	if homes[0] == "" {
		homes[0] = ".mayfly"
	}
	if absolute, err := filepath.Abs(folder); err == nil && folder != "" && filepath.Base(filepath.Dir(absolute)) == "workloads" {
		homes = append([]string{filepath.Dir(filepath.Dir(absolute))}, homes...)
	}
	for _, home := range homes {
		var found struct {
			Address string `json:"grpc"`
		}
		text, err := os.ReadFile(filepath.Join(home, "endpoint.json"))
		if o.server == "" && err == nil && json.Unmarshal(text, &found) == nil {
			o.server = found.Address
		}
	}
	return o
}

// The pauses before a stream of the Workload API is opened again.
type pauses struct{}

func (pauses) NewBackoff() workloadapi.Backoff { return &pausing{} }

type pausing struct{ failures int }

func (p *pausing) Next() time.Duration {
	p.failures++
	return streams(p.failures-1, chance())
}

func (p *pausing) Reset() { p.failures = 0 }
