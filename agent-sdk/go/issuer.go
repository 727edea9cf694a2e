package mayfly

// Calls to the issuer: mTLS with the newest certificate, time limits, and what a refusal means.

import (
	"context"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffegrpc/grpccredentials"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"

	"mayfly.dev/agent-sdk/go/mayflyv1"
)

// A gRPC connection that is replaced whenever the certificate is.
//
// INVARIANT: once a connection was made with a renewed certificate, none is made with its predecessor. The issuer would take the
// predecessor for stolen and revoke the agent. So the old one is closed before the new one can be used; calls that this cancels are
// made again on the new one.
type connection struct {
	address string
	// The newest roots.
	roots x509bundle.Source
	// Guards what is below, for a look or a change.
	mutex sync.Mutex
	grpc  *grpc.ClientConn
}

func connect(address string, as *x509svid.SVID, roots x509bundle.Source) (*connection, error) {
	opened, err := open(address, as, roots)
	return &connection{address: address, roots: roots, grpc: opened}, err
}

// It connects again soon after an outage.
var pausesOfGRPC = grpc.ConnectParams{
	Backoff:           grpcbackoff.Config{BaseDelay: first, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: patience,
}

func open(address string, as *x509svid.SVID, roots x509bundle.Source) (*grpc.ClientConn, error) {
	issuer, err := spiffeid.FromPath(as.ID.TrustDomain(), "/issuer")
	if err != nil {
		return nil, wrong(ErrUnusable, "trust_domain", "%v", err)
	}
	mtls := grpccredentials.MTLSClientCredentials(as, roots, tlsconfig.AuthorizeID(issuer))
	// Without a resolver or a proxy: nothing connects but this, and to nothing but that address.
	opened, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(mtls), grpc.WithNoProxy(), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(pausesOfGRPC))
	if err != nil {
		return nil, wrong(ErrUnusable, "address", "`%s` is not the address of an issuer: %v", address, err)
	}
	return opened, nil
}

// Connects now, with the handshake, within the limit of a call; nothing is asked.
func (c *connection) handshake(ctx context.Context) error {
	on, err := c.now()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	on.Connect()
	for at := on.GetState(); at != connectivity.Ready; at = on.GetState() {
		if !on.WaitForStateChange(limited, at) {
			return wrong(ErrUnavailable, "unavailable", "cannot reach `%s`: check that the issuer runs", c.address)
		}
	}
	return nil
}

// Presents another certificate from now on.
func (c *connection) show(as *x509svid.SVID) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.grpc == nil {
		return nil
	}
	// ORDER: see above.
	c.grpc.Close()
	opened, err := open(c.address, as, c.roots)
	if err == nil {
		c.grpc = opened
	}
	return err
}

func (c *connection) close() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.grpc != nil {
		c.grpc.Close()
		c.grpc = nil
	}
}

func (c *connection) now() (*grpc.ClientConn, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.grpc == nil {
		return nil, wrong(ErrUnavailable, "closed", "the connection to the issuer was closed")
	}
	return c.grpc, nil
}

// Makes one call of Identities, within its time limit.
func call[Q, A any](
	ctx context.Context, c *connection, method func(mayflyv1.IdentitiesClient, context.Context, Q, ...grpc.CallOption) (A, error), request Q,
) (A, error) {
	return calling(ctx, c, false, func(ctx context.Context, on *grpc.ClientConn) (A, error) {
		return method(mayflyv1.NewIdentitiesClient(on), ctx, request)
	})
}

// Makes a call, and makes it again where the connection is to blame. `harmless` says that the issuer may hear it twice.
func calling[A any](ctx context.Context, c *connection, harmless bool, ask func(context.Context, *grpc.ClientConn) (A, error)) (A, error) {
	var none A
	for attempt := range tries {
		began := time.Now()
		on, err := c.now()
		if err != nil {
			return none, err
		}
		limited, cancel := context.WithTimeout(ctx, patience)
		got, err := ask(limited, on)
		cancel()
		if err == nil {
			return got, nil
		}
		if ctx.Err() != nil {
			return none, context.Cause(ctx)
		}
		err = errorOf(err)
		now, gone := c.now()
		// The issuer closed the connection, as it does with those of whoever was revoked: the next one hears why.
		lost := harmless && attempt == 0 && codeOf(err) == "unavailable" && time.Since(began) < patience/2
		// A renewal was used while this call was under way on the connection from before it, or closed that connection.
		moved := codeOf(err) == "GENERATION_PAST" || (gone == nil && now != on && transient(err))
		if !moved && !lost {
			return none, err
		}
	}
	return none, wrong(ErrUnavailable, "moved", "the certificate was renewed again and again during this call: ask again")
}
