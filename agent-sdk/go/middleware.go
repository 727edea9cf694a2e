package mayfly

// Services that let nobody in but agents: for net/http and for gRPC.

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type callerKey struct{}

// CallerOf is the agent behind a request or a call.
func CallerOf(ctx context.Context) (*Caller, bool) {
	caller, found := ctx.Value(callerKey{}).(*Caller)
	return caller, found
}

// In bytes.
const longestToken = 16384

var (
	bearerToken = regexp.MustCompile(`^(?i:bearer) +([A-Za-z0-9._~+/=-]+)$`)
	plainScope  = regexp.MustCompile(`^[\x21\x23-\x5b\x5d-\x7e]+$`)
)

// Checks all `Authorization` headers of a request, of which there must be exactly one.
func checkHeaders(ctx context.Context, checker Checker, headers []string, scopes []string) (*Caller, error) {
	if len(headers) == 0 {
		return nil, &Refused{http.StatusUnauthorized, "CREDENTIAL_MISSING", "show a bearer token", scopes}
	}
	found := bearerToken.FindStringSubmatch(strings.TrimSpace(headers[0]))
	if len(headers) > 1 || found == nil || len(found[1]) > longestToken {
		hint := "there must be one authorization header, with a bearer token"
		return nil, &Refused{http.StatusUnauthorized, "TOKEN_MALFORMED", hint, scopes}
	}
	caller, err := checker.Check(ctx, found[1], scopes...)
	var refused *Refused
	if err != nil && !errors.As(err, &refused) {
		return nil, notKnown(err)
	}
	return caller, err
}

// Require lets requests of agents pass that have all of these scopes; [CallerOf] says who it is. Others get 401, 403 or 503, and the
// reason code.
func Require(checker Checker, scopes ...string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
			caller, err := checkHeaders(request.Context(), checker, request.Header.Values("Authorization"), scopes)
			var refused *Refused
			if errors.As(err, &refused) {
				refused.Answer(writer)
				return
			}
			next.ServeHTTP(writer, request.WithContext(context.WithValue(request.Context(), callerKey{}, caller)))
		})
	}
}

// Answer writes the response to a request that is refused. A stranger learns no more than the code.
func (r *Refused) Answer(writer http.ResponseWriter) {
	headers := writer.Header()
	headers.Set("Mayfly-Reason", r.Code)
	headers.Set("Cache-Control", "no-store")
	headers.Set("Content-Type", "application/json")
	switch {
	case r.Status == http.StatusServiceUnavailable:
		headers.Set("Retry-After", "1")
	case r.Code == "SCOPE_MISSING":
		var plain []string
		for _, scope := range r.Scopes {
			if plainScope.MatchString(scope) {
				plain = append(plain, scope)
			}
		}
		headers.Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+strings.Join(plain, " ")+`"`)
	case r.Code == "CREDENTIAL_MISSING":
		headers.Set("WWW-Authenticate", "Bearer")
	case r.Status == http.StatusUnauthorized:
		headers.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	writer.WriteHeader(r.Status)
	_ = json.NewEncoder(writer).Encode(map[string]string{"error": r.Code})
}

// Methods says which scopes a caller needs, by full method name, as "/package.Service/Method". A method that is not listed is for nobody.
type Methods map[string][]string

// Unary is the interceptor for calls with one answer. Others end with UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE, and the reason
// in the trailer `mayfly-reason`.
func Unary(checker Checker, methods Methods) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		as, trailer, err := admit(ctx, checker, methods, info.FullMethod)
		if err != nil {
			_ = grpc.SetTrailer(ctx, trailer)
			return nil, err
		}
		return handle(as, request)
	}
}

// Stream is the interceptor for calls that stream. The caller is checked when the stream is opened.
func Stream(checker Checker, methods Methods) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		as, trailer, err := admit(stream.Context(), checker, methods, info.FullMethod)
		if err != nil {
			stream.SetTrailer(trailer)
			return err
		}
		return handle(server, &admitted{stream, as})
	}
}

type admitted struct {
	grpc.ServerStream
	ctx context.Context
}

func (a *admitted) Context() context.Context { return a.ctx }

func admit(ctx context.Context, checker Checker, methods Methods, method string) (context.Context, metadata.MD, error) {
	scopes, listed := methods[method]
	var caller *Caller
	var err error = &Refused{http.StatusForbidden, "CALLER_NOT_AUTHORIZED", "this method is for no agent", nil}
	if listed {
		caller, err = checkHeaders(ctx, checker, metadata.ValueFromIncomingContext(ctx, "authorization"), scopes)
	}
	var refused *Refused
	if errors.As(err, &refused) {
		code := codes.Unauthenticated
		switch refused.Status {
		case http.StatusForbidden:
			code = codes.PermissionDenied
		case http.StatusServiceUnavailable:
			code = codes.Unavailable
		}
		return nil, metadata.Pairs("mayfly-reason", refused.Code), status.Error(code, refused.Code+": the call is refused")
	}
	return context.WithValue(ctx, callerKey{}, caller), nil, nil
}
