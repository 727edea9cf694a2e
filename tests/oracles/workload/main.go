// A stock go-spiffe program under `mayfly run`: it uses the Workload API until it is cut, or speaks mTLS with another.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const audience = "https://search.example"

var domain = spiffeid.RequireTrustDomainFromString("dev.mayfly.test")

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	switch os.Args[1] {
	case "whole":
		whole(ctx)
	case "serve":
		serve(ctx, os.Args[2])
	case "dial":
		dial(ctx, os.Args[2])
	}
}

// Counts what the stream brings, and keeps how it ended.
type watcher struct {
	seen chan *workloadapi.X509Context
	end  chan error
}

func (w *watcher) OnX509ContextUpdate(c *workloadapi.X509Context) { w.seen <- c }
func (w *watcher) OnX509ContextWatchError(err error) {
	select {
	case w.end <- err:
	default:
	}
}

func whole(ctx context.Context) {
	// The cut is read from the stream; the SIGTERM that comes with it is not what ends us.
	signal.Ignore(syscall.SIGTERM)
	client := must(workloadapi.New(ctx))
	w := &watcher{make(chan *workloadapi.X509Context, 16), make(chan error, 1)}
	go client.WatchX509Context(ctx, w)
	var id spiffeid.ID
	for rotation := 0; rotation < 4; rotation++ {
		update := <-w.seen
		svid := update.DefaultSVID()
		if rotation > 0 && svid.ID != id {
			check(fmt.Errorf("%s became %s", id, svid.ID))
		}
		id = svid.ID
		if _, err := update.Bundles.GetX509BundleForTrustDomain(domain); err != nil {
			check(err)
		}
	}
	token := must(client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience}))
	validated := must(client.ValidateJWTSVID(ctx, token.Marshal(), audience))
	keys := must(workloadapi.NewJWTSource(ctx))
	local := must(jwtsvid.ParseAndValidate(token.Marshal(), keys, []string{audience}))
	if token.ID != id || validated.ID != id || local.ID != id {
		check(fmt.Errorf("%s, %s and %s are not %s", token.ID, validated.ID, local.ID, id))
	}
	check(os.WriteFile("go.rotated", []byte(id.String()+"\n"), 0o600))
	for {
		select {
		case <-w.seen:
		case err := <-w.end:
			if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != "no identity issued" {
				check(fmt.Errorf("after the cut: %w", err))
			}
			check(os.WriteFile("go.cut", []byte(status.Convert(err).Message()+"\n"), 0o600))
			return
		}
	}
}

func serve(ctx context.Context, address string) {
	source := must(workloadapi.NewX509Source(ctx))
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeMemberOf(domain))
	listener := must(tls.Listen("tcp", address, config))
	check(os.WriteFile("go.serves", []byte("\n"), 0o600))
	for {
		connection := must(listener.Accept())
		go func(connection net.Conn) {
			defer connection.Close()
			if line, err := bufio.NewReader(connection).ReadString('\n'); err == nil {
				fmt.Fprintf(connection, "go heard %s", line)
			}
		}(connection)
	}
}

func dial(ctx context.Context, address string) {
	source := must(workloadapi.NewX509Source(ctx))
	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeMemberOf(domain))
	connection := must(tls.Dial("tcp", address, config))
	fmt.Fprintln(connection, "go")
	answer := must(bufio.NewReader(connection).ReadString('\n'))
	if !strings.HasSuffix(answer, "go\n") {
		check(errors.New(answer))
	}
	fmt.Print(answer)
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "go:", err)
		os.Exit(1)
	}
}
