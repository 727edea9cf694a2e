package mayfly

// An identity that a Workload API serves and renews; go-spiffe follows it.

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"mayfly.dev/agent-sdk/go/mayflyv1"
)

type served struct {
	*state
	client *workloadapi.Client
	// host:port of the issuer, if that is known.
	server string
	stop   context.CancelFunc
	// Closed when the first answer is known, good or bad.
	first chan struct{}
	once  sync.Once
	// Guards what is below.
	about sync.Mutex
	why   error
	// URL of the issuer, once a token has said it.
	iss string
	// Fetches what the API has now; tests put something in between.
	newest func(context.Context) (*workloadapi.X509Context, error)
}

func (s *served) fetch(ctx context.Context) (*workloadapi.X509Context, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	newest, err := s.client.FetchX509Context(ctx)
	if err != nil {
		return nil, errorOfAPI(err)
	}
	return newest, nil
}

func serve(ctx context.Context, client *workloadapi.Client, server string) (*Identity, error) {
	following, stop := context.WithCancel(context.Background())
	s := &served{state: newState(), client: client, server: server, stop: stop, first: make(chan struct{})}
	s.newest = s.fetch
	s.why = wrong(ErrUnavailable, "unavailable", "no identity arrived in time: check that the Workload API runs")
	go func() {
		err := client.WatchX509Context(following, s)
		if following.Err() == nil {
			s.OnX509ContextWatchError(err)
			s.once.Do(func() { close(s.first) })
		}
	}()
	select {
	case <-s.first:
	case <-ctx.Done():
	}
	if _, err := s.current(); err != nil {
		s.close()
		s.about.Lock()
		defer s.about.Unlock()
		return nil, s.why
	}
	return &Identity{keeper: s, state: s.state}, nil
}

// OnX509ContextUpdate is for go-spiffe.
func (s *served) OnX509ContextUpdate(next *workloadapi.X509Context) {
	svid := next.DefaultSVID()
	if held, err := s.current(); err == nil && held.svid.ID != svid.ID {
		s.tokens.clear()
	}
	s.set(&current{svid: svid, bundles: next.Bundles})
	s.once.Do(func() { close(s.first) })
}

// OnX509ContextWatchError is for go-spiffe. An identity that was withdrawn has ended.
func (s *served) OnX509ContextWatchError(err error) {
	why := errorOfAPI(err)
	s.about.Lock()
	s.why = why
	s.about.Unlock()
	if status.Code(err) != codes.PermissionDenied {
		return
	}
	if _, err := s.current(); err == nil {
		s.endBecause(wrong(ErrRevoked, "withdrawn", "%s", why.Hint))
	}
}

func errorOfAPI(err error) *Error {
	text := shorten(status.Convert(err).Message())
	switch status.Code(err) {
	case codes.PermissionDenied:
		return wrong(ErrNoIdentity, "no_identity", "the Workload API refuses: %s; check that this process is registered there", text)
	case codes.InvalidArgument, codes.Unimplemented:
		return wrong(ErrDenied, status.Code(err).String(), "the Workload API refuses this: %s", text)
	default:
		return wrong(ErrUnavailable, "unavailable", "the Workload API cannot answer now: %s; check that it runs", text)
	}
}

func (s *served) mint(ctx context.Context, audience, forAgent string) (string, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	held, err := s.current()
	if err != nil {
		return "", time.Time{}, err
	}
	subject := held.svid.ID
	if forAgent != "" {
		// `mayfly run` mints for a sub-agent without a key on its own connection.
		if subject, err = spiffeid.FromString(forAgent); err != nil {
			return "", time.Time{}, wrong(ErrUnusable, "answer", "%v", err)
		}
	}
	svid, err := s.client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience, Subject: subject})
	// It may be the end of the identity, or of this one audience: the stream of certificates tells.
	now, over := s.current()
	switch {
	case over != nil:
		return "", time.Time{}, over
	case err != nil && forAgent != "":
		return "", time.Time{}, errorOf(err)
	case err != nil:
		return "", time.Time{}, errorOfAPI(err)
	case svid.ID != subject || now.svid.ID != held.svid.ID:
		return "", time.Time{}, wrong(ErrUnavailable, "changed", "the identity changed in the meantime: ask again")
	}
	return svid.Marshal(), svid.Expiry, nil
}

// At the token endpoint, which accepts a JWT-SVID. The API's server renews, and a connection with a certificate from before that would
// be taken for theft.
func (s *served) exchange(ctx context.Context, audience string, scopes []string, forAgent string) (string, time.Time, error) {
	if forAgent != "" {
		// No JWT-SVID of it proves it there: it is bound to a certificate.
		return exchanged(ctx, s, audience, scopes, forAgent)
	}
	var none time.Time
	held, err := s.current()
	if err != nil {
		return "", none, err
	}
	iss, err := s.issuer(ctx, audience)
	if err != nil {
		return "", none, err
	}
	at, err := endpoint(iss, s.server)
	if err != nil {
		return "", none, err
	}
	var trust *tls.Config
	if s.server != "" {
		wanted, err := spiffeid.FromPath(held.svid.ID.TrustDomain(), "/issuer")
		if err != nil {
			return "", none, wrong(ErrUnusable, "answer", "%v", err)
		}
		trust = tlsconfig.TLSClientConfig(held.bundles, tlsconfig.AuthorizeID(wanted))
	}
	for attempt := 0; ; attempt++ {
		assertion, _, err := s.mint(ctx, iss, "")
		if err != nil {
			return "", none, err
		}
		text, expiresAt, err := ask(ctx, at, assertion, audience, scopes, trust)
		// Another process of the tree may have been given the same one.
		if attempt > 0 || codeOf(err) != "ASSERTION_USED" {
			return text, expiresAt, err
		}
	}
}

// URL of the issuer, which its tokens say.
func (s *served) issuer(ctx context.Context, audience string) (string, error) {
	s.about.Lock()
	iss := s.iss
	s.about.Unlock()
	if iss != "" {
		return iss, nil
	}
	text, _, err := s.mint(ctx, audience, "")
	if err != nil {
		return "", err
	}
	iss, _ = claimsOf(text)["iss"].(string)
	s.about.Lock()
	defer s.about.Unlock()
	s.iss = iss
	return iss, nil
}

// A connection for one purpose: the newest certificate is fetched first, and the connection does not outlive its purpose. The API's
// server renews, and the issuer takes a connection with a certificate from before a used renewal for theft.
func (s *served) connected(ctx context.Context, use func(*connection) error) error {
	if s.server == "" {
		return noIssuer()
	}
	if _, err := s.current(); err != nil {
		return err
	}
	c, err := s.reach(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	return use(c)
}

// A connection that the issuer accepted while its certificate was the newest one. The API's server publishes a renewed certificate before
// it uses it. So if the newest one is still the same after the handshake, its successor has not been used, and the issuer excuses this
// connection whatever happens next. Otherwise nothing was asked over it, for which nobody is punished, and it is made again.
func (s *served) reach(ctx context.Context) (*connection, error) {
	newest, err := s.newest(ctx)
	for range tries {
		if err != nil {
			return nil, err
		}
		c, err := connect(s.server, newest.DefaultSVID(), newest.Bundles)
		if err != nil {
			return nil, err
		}
		if err = c.handshake(ctx); err != nil {
			c.close()
			return nil, err
		}
		now, err := s.newest(ctx)
		if err == nil && now.DefaultSVID().Certificates[0].Equal(newest.DefaultSVID().Certificates[0]) {
			return c, nil
		}
		c.close()
		if err != nil {
			return nil, err
		}
		newest = now
	}
	return nil, wrong(ErrUnavailable, "moved", "the certificate was renewed again and again while connecting: ask again")
}

// `mayfly run` ends the identity with its command; this does it now, if it is known where the issuer is.
func (s *served) asked(ctx context.Context, use func(*connection) error) error {
	return s.connected(ctx, use)
}

func (s *served) end(ctx context.Context) error {
	err := s.connected(ctx, func(c *connection) error {
		_, err := call(ctx, c, mayflyv1.IdentitiesClient.End, &mayflyv1.EndRequest{})
		return err
	})
	// Ended for another reason already: the result is the same.
	if err != nil && !errors.Is(err, ErrRevoked) {
		return err
	}
	s.endBecause(wrong(ErrEnded, "ended", "this process ended the identity"))
	return nil
}

func (s *served) close() {
	s.stop()
	_ = s.client.Close()
}
