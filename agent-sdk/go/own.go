package mayfly

// An identity whose key is in this process: one goroutine renews it, another follows the bundles and hears of its revocation.

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"

	"mayfly.dev/agent-sdk/go/mayflyv1"
)

type owned struct {
	*state
	connection *connection
	address    string
	// Beyond it no renewal is possible; zero for a workload.
	lease time.Time
	stop  context.CancelFunc
}

func own(address string, held *current, lease time.Time) (*Identity, error) {
	s := newState()
	s.set(held)
	c, err := connect(address, held.svid, s)
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(s.ended)
	o := &owned{state: s, connection: c, address: address, lease: lease, stop: stop}
	context.AfterFunc(running, c.close)
	go o.renew(running)
	go o.follow(running)
	return &Identity{keeper: o, state: s}, nil
}

// A new key, and the request for its certificate.
func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, csr, err
}

// Accepts the issuer's answer only if it is complete and certifies this key.
func answered(key *ecdsa.PrivateKey, certified *mayflyv1.X509Svid, bundle *mayflyv1.Bundle) (*current, error) {
	if len(certified.GetCertificates()) == 0 || len(bundle.GetX509Authorities()) == 0 {
		return nil, wrong(ErrUnusable, "answer", "the issuer's answer is incomplete: check that both ends are of the same release")
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	// It refuses a certificate for another key, and one that is not an SVID.
	svid, err := x509svid.ParseRaw(slices.Concat(certified.GetCertificates()...), pkcs8)
	if err != nil {
		return nil, wrong(ErrUnusable, "answer", "the issuer's answer is no certificate of ours: %v", err)
	}
	if svid.ID.String() != certified.GetSpiffeId() || svid.ID.TrustDomain().Name() != bundle.GetTrustDomain() {
		return nil, wrong(ErrUnusable, "answer", "the certificate has another SPIFFE ID than the answer")
	}
	set, err := bundles(svid.ID.TrustDomain(), bundle, nil)
	return &current{svid, set, bundle.GetSequence()}, err
}

func bundles(of spiffeid.TrustDomain, bundle *mayflyv1.Bundle, foreign []*mayflyv1.ForeignBundle) (*x509bundle.Set, error) {
	roots, err := x509bundle.ParseRaw(of, slices.Concat(bundle.GetX509Authorities()...))
	if err != nil {
		return nil, wrong(ErrUnusable, "answer", "the bundle cannot be read: %v", err)
	}
	set := x509bundle.NewSet(roots)
	for _, entry := range foreign {
		// One that cannot be read is treated as absent.
		trustDomain, err := spiffeid.TrustDomainFromString(entry.GetTrustDomain())
		if err != nil || trustDomain == of {
			continue
		}
		if roots, err := foreignRoots(trustDomain, entry.GetSpiffeJson()); err == nil {
			set.Add(roots)
		}
	}
	return set, nil
}

func (o *owned) mint(ctx context.Context, audience, forAgent string) (string, time.Time, error) {
	var got *mayflyv1.MintJwtResponse
	err := o.connected(ctx, func(c *connection) (err error) {
		got, err = calling(ctx, c, true, func(ctx context.Context, on *grpc.ClientConn) (*mayflyv1.MintJwtResponse, error) {
			return mayflyv1.NewIdentitiesClient(on).MintJwt(ctx, &mayflyv1.MintJwtRequest{Audience: audience, ForAgent: forAgent})
		})
		return err
	})
	if err == nil && (got.GetSvid().GetToken() == "" || got.GetSvid().GetExpiresAt() == nil) {
		err = wrong(ErrUnusable, "answer", "the issuer's answer has no token: check that both ends are of the same release")
	}
	return got.GetSvid().GetToken(), got.GetSvid().GetExpiresAt().AsTime(), err
}

func (o *owned) exchange(ctx context.Context, audience string, scopes []string, forAgent string) (string, time.Time, error) {
	return exchanged(ctx, o, audience, scopes, forAgent)
}

// An access token of the issuer, asked for on a connection of this identity.
func exchanged(ctx context.Context, o keeper, audience string, scopes []string, forAgent string) (string, time.Time, error) {
	var got *mayflyv1.ExchangeResponse
	err := o.connected(ctx, func(c *connection) (err error) {
		got, err = calling(ctx, c, true, func(ctx context.Context, on *grpc.ClientConn) (*mayflyv1.ExchangeResponse, error) {
			return mayflyv1.NewTokensClient(on).Exchange(ctx, &mayflyv1.ExchangeRequest{Audience: audience, Scopes: scopes, ForAgent: forAgent})
		})
		return err
	})
	if err == nil && (got.GetAccessToken() == "" || got.GetExpiresAt() == nil) {
		err = wrong(ErrUnusable, "answer", "the issuer's answer has no token: check that both ends are of the same release")
	}
	return got.GetAccessToken(), got.GetExpiresAt().AsTime(), err
}

func (o *owned) connected(_ context.Context, use func(*connection) error) error {
	if _, err := o.current(); err != nil {
		return err
	}
	err := use(o.connection)
	if errors.Is(err, ErrRevoked) {
		o.endBecause(err)
	}
	if _, over := o.current(); over != nil {
		return over
	}
	return err
}

func (o *owned) asked(ctx context.Context, use func(*connection) error) error {
	return o.connected(ctx, use)
}

func (o *owned) end(ctx context.Context) error {
	held, err := o.current()
	if err == nil && isAgent(held.svid.ID) {
		_, err = call(ctx, o.connection, mayflyv1.IdentitiesClient.End, &mayflyv1.EndRequest{})
	}
	// Ended for another reason already: the result is the same.
	if err != nil && !errors.Is(err, ErrRevoked) {
		return err
	}
	o.endBecause(wrong(ErrEnded, "ended", "this process ended the identity"))
	return nil
}

func (o *owned) close() { o.stop() }

func (o *owned) now() *current {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.held
}

// Renews until the identity ends. A certificate that is still valid is never given up.
func (o *owned) renew(ctx context.Context) {
	at := o.nextRenewal()
	for {
		endsAt := o.now().svid.Certificates[0].NotAfter
		due := endsAt
		if !at.IsZero() && at.Before(endsAt) {
			due = at
		}
		if !waitUntil(ctx, due) {
			return
		}
		if !now().Before(endsAt) {
			why := "it could not be renewed in time: check that the issuer runs"
			if at.IsZero() {
				why = "its lease has ended"
			}
			o.endBecause(wrong(ErrExpired, "expired", "%s", why))
			return
		}
		err := o.renewOnce(ctx)
		switch {
		case err == nil:
			at = o.nextRenewal()
		case errors.Is(err, ErrRevoked):
			o.endBecause(err)
			return
		default:
			at = now().Add(again(max(endsAt.Sub(now()), 0), chance()))
		}
	}
}

// Zero if the certificate lasts as long as the lease, so that a renewal would gain nothing.
func (o *owned) nextRenewal() time.Time {
	endsAt := o.now().svid.Certificates[0].NotAfter
	if !o.lease.IsZero() && !endsAt.Before(o.lease) {
		return time.Time{}
	}
	return now().Add(renewal(max(endsAt.Sub(now()), 0), chance()))
}

func (o *owned) renewOnce(ctx context.Context) error {
	key, csr, err := newKey()
	if err != nil {
		return err
	}
	got, err := call(ctx, o.connection, mayflyv1.IdentitiesClient.Renew, &mayflyv1.RenewRequest{Csr: csr})
	if err != nil {
		return err
	}
	next, err := answered(key, got.GetSvid(), got.GetBundle())
	if err != nil {
		return err
	}
	if next.svid.ID != o.now().svid.ID {
		return wrong(ErrUnusable, "answer", "the renewed certificate has another SPIFFE ID")
	}
	// ORDER: before the certificate is published, so that no new connection is made with its predecessor.
	err = o.connection.show(next.svid)
	o.mutex.Lock()
	if next.sequence <= o.held.sequence {
		next.bundles, next.sequence = o.held.bundles, o.held.sequence
	}
	o.held = next
	o.mutex.Unlock()
	o.tokens.forgetAccess()
	return err
}

// Follows the bundles. This stream is also the fastest news of a revocation: the issuer closes it, and gives the reason when it is
// opened again.
func (o *owned) follow(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		before, opened := o.now(), time.Now()
		heard, err := o.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if err = errorOf(err); errors.Is(err, ErrRevoked) {
			o.endBecause(err)
			return
		}
		if heard && time.Since(opened) >= stood {
			failures = 0
		}
		// Opened again at once with the renewed certificate, which also tells the issuer that it is in use.
		if before.svid != o.now().svid {
			failures = 0
			continue
		}
		pause := calls(0, chance())
		if failures > 0 {
			pause = back(max(before.svid.Certificates[0].NotAfter.Sub(now()), 0), chance())
		}
		failures++
		wait(ctx, pause)
	}
}

func (o *owned) listen(ctx context.Context) (heard bool, err error) {
	on, err := o.connection.now()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := mayflyv1.NewBundlesClient(on).WatchBundle(ctx, &mayflyv1.WatchBundleRequest{})
	for err == nil {
		var message *mayflyv1.WatchBundleResponse
		if message, err = stream.Recv(); err == nil {
			err = o.take(message)
			heard = heard || err == nil
		}
	}
	return heard, err
}

func (o *owned) take(message *mayflyv1.WatchBundleResponse) error {
	known, bundle := o.now(), message.GetBundle()
	of := known.svid.ID.TrustDomain()
	if len(bundle.GetX509Authorities()) == 0 || bundle.GetTrustDomain() != of.Name() {
		return wrong(ErrUnusable, "answer", "the bundle is empty or of another trust domain")
	}
	set, err := bundles(of, bundle, message.GetForeign())
	if err != nil {
		return err
	}
	o.mutex.Lock()
	defer o.mutex.Unlock()
	// A bundle with a lower sequence never replaces another.
	if bundle.GetSequence() >= o.held.sequence {
		o.held = &current{o.held.svid, set, bundle.GetSequence()}
	}
	return nil
}
