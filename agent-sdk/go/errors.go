package mayfly

// What goes wrong, and what to do. Each error has a stable code, and says whether the same call may succeed later.

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The kinds of errors, for [errors.Is].
var (
	// ErrDenied: the issuer denied this one call; the identity stays as it is.
	ErrDenied = errors.New("denied")
	// ErrUnavailable: the issuer, the Workload API or the guard does not answer. Ask again.
	ErrUnavailable = errors.New("unavailable")
	// ErrRevoked: the identity has ended for good. Stop working, or obtain a new one.
	ErrRevoked = errors.New("revoked")
	// ErrExpired: it has ended because its lease did, or because its certificate was not renewed in time. A kind of ErrRevoked.
	ErrExpired = fmt.Errorf("expired: %w", ErrRevoked)
	// ErrEnded: it has ended because this process ended it. A kind of ErrRevoked.
	ErrEnded = fmt.Errorf("ended: %w", ErrRevoked)
	// ErrNoIdentity: this process has none. Start it with `mayfly run`.
	ErrNoIdentity = errors.New("no identity")
	// ErrUnusable: an address, a folder or an answer cannot be used. It never becomes usable by itself.
	ErrUnusable = errors.New("unusable")
)

// Error says what went wrong.
type Error struct {
	// Kind is one of the kinds above.
	Kind error
	// Code is stable: a reason code of the issuer, or a label in lower case.
	Code string
	// Hint says what happened and what to do, for people.
	Hint string
	// RetryAfter says after what time to ask again; 0 if that is not known.
	RetryAfter time.Duration
	// Details are what the issuer says beside the code, such as whose budget or limit it is; nil if it says nothing.
	Details map[string]string
}

func (e *Error) Error() string { return e.Code + ": " + e.Hint }

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

// Transient says whether the same call may succeed later although nobody does anything else.
func (e *Error) Transient() bool { return e.Kind == ErrUnavailable || e.RetryAfter > 0 }

func wrong(kind error, code, hint string, about ...any) *Error {
	return &Error{Kind: kind, Code: code, Hint: fmt.Sprintf(hint, about...)}
}

func transient(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Transient()
}

func codeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Refused as UNAUTHENTICATED with one of these, the caller's certificate is refused for good; true where time has run out.
var final = map[string]bool{
	"AGENT_ENDED": false, "AGENT_EXPIRED": true, "AGENT_ORPHANED": false, "AGENT_REVOKED": false, "AGENT_UNKNOWN": false,
	"AUTHORITY_TAINTED": false, "CREDENTIAL_EXPIRED": true, "CREDENTIAL_REUSED": false, "CREDENTIAL_REVOKED": false,
	"GENERATION_REPLACED": false, "KEY_REVOKED": false, "WORKLOAD_UNKNOWN": false,
}

func finally(code, hint string) *Error {
	if final[code] {
		return wrong(ErrExpired, code, "%s", hint)
	}
	return wrong(ErrRevoked, code, "%s", hint)
}

// What a failed call means for the identity that made it.
func errorOf(err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	told := status.Convert(err)
	code, reason, text := told.Code(), "", shorten(told.Message())
	var said map[string]string
	var after time.Duration
	for _, detail := range told.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason, said = detail.GetReason(), detail.GetMetadata()
		case *errdetails.RetryInfo:
			after = detail.GetRetryDelay().AsDuration()
		}
	}
	label := reason
	if label == "" {
		label = code.String()
	}
	if _, ends := final[reason]; ends && code == codes.Unauthenticated {
		return finally(reason, text)
	}
	if code == codes.Unavailable && reason == "" && untrusted(text) {
		return wrong(ErrUnusable, "untrusted", "the server is not this trust domain's issuer: %s; check the address", text)
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.Unknown, codes.Canceled, codes.Aborted:
		if reason == "" {
			label = "unavailable"
		}
		return &Error{ErrUnavailable, label, "the issuer cannot answer now: " + text, after, said}
	default:
		return &Error{ErrDenied, label, text, after, said}
	}
}

func shorten(text string) string {
	if len(text) > 300 {
		return text[:300]
	}
	return text
}
