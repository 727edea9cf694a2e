package mayfly

// The token endpoint: an access token for an agent that proves itself by a JWT-SVID (RFC 6749 4.4, RFC 7523 2.2).

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The longest answer, in bytes.
const longestAnswer = 64 << 10

var reasonIn = regexp.MustCompile(`^([A-Z][A-Z0-9_]*): (.*)$`)

// The token endpoint of an issuer by its URL, or the same at its own address, host:port.
func endpoint(issuer, address string) (*url.URL, error) {
	at, err := url.Parse(issuer)
	if err != nil || at.Scheme != "https" || at.Host == "" || at.RawQuery != "" || at.Fragment != "" || at.User != nil {
		return nil, wrong(ErrUnusable, "answer", "the token names no issuer by an https URL: the issuer has no token endpoint")
	}
	if address != "" {
		at.Host = address
	}
	return at.JoinPath("oauth/token"), nil
}

// Obtains an access token. The server is verified by `trust`, or by the roots of the system if that is nil.
func ask(ctx context.Context, at *url.URL, assertion, audience string, scopes []string, trust *tls.Config) (string, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	form := url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"},
		"client_assertion":      {assertion},
		"audience":              {audience},
		"scope":                 {strings.Join(scopes, " ")},
	}
	began := time.Now()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return "", time.Time{}, wrong(ErrUnusable, "endpoint", "the token endpoint cannot be asked: %v", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// An assertion goes to the issuer and nowhere else.
	client := http.Client{
		Transport:     &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return "", time.Time{}, away(at, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	if err != nil {
		return "", time.Time{}, away(at, err)
	}
	var answer struct {
		Error       string  `json:"error"`
		Description string  `json:"error_description"`
		Token       string  `json:"access_token"`
		Kind        string  `json:"token_type"`
		Life        float64 `json:"expires_in"`
	}
	unread := json.Unmarshal(body, &answer)
	if response.StatusCode != http.StatusOK {
		return "", time.Time{}, refusal(response.StatusCode, answer.Error, answer.Description, response.Header.Get("Retry-After"))
	}
	if unread != nil || answer.Token == "" || !strings.EqualFold(answer.Kind, "bearer") || answer.Life <= 0 {
		return "", time.Time{}, wrong(ErrUnusable, "answer", "the answer of the token endpoint has no bearer token")
	}
	return answer.Token, began.Add(part(time.Second, answer.Life)), nil
}

func away(at *url.URL, err error) error {
	if untrusted(err.Error()) || errors.As(err, new(x509.UnknownAuthorityError)) || errors.As(err, new(*tls.CertificateVerificationError)) {
		hint := "`%s` is not the issuer: %v; set MAYFLY_SERVER=host:port to ask it at its own address"
		return wrong(ErrUnusable, "untrusted", hint, at.Host, err)
	}
	return wrong(ErrUnavailable, "unavailable", "the token endpoint at `%s` does not answer: %v", at.Host, err)
}

// Whether a handshake failed because of the server's certificate. gRPC gives the text alone.
func untrusted(text string) bool {
	for _, mark := range []string{"x509svid: ", "x509: ", "x509bundle: ", "unexpected ID"} {
		if strings.Contains(text, mark) {
			return true
		}
	}
	return false
}

// What a refusal means. Its description begins with a reason code, where the issuer has one.
func refusal(status int, code, description, retry string) error {
	hint, reason := description, false
	if found := reasonIn.FindStringSubmatch(description); found != nil {
		code, hint, reason = found[1], found[2], true
	}
	if code == "" {
		code = strconv.Itoa(status)
	}
	seconds, _ := strconv.ParseUint(retry, 10, 16)
	after := time.Duration(seconds) * time.Second
	_, ends := final[code]
	switch {
	case status == http.StatusTooManyRequests:
		return &Error{ErrDenied, code, hint, max(after, time.Second), nil}
	case status >= 500:
		if !reason {
			code = "unavailable"
		}
		return &Error{ErrUnavailable, code, "the token endpoint cannot answer now: " + hint, after, nil}
	// CREDENTIAL_EXPIRED speaks of the assertion, which a clock that is behind can make old before its time.
	case status == http.StatusUnauthorized && ends && code != "CREDENTIAL_EXPIRED":
		return finally(code, hint)
	default:
		return wrong(ErrDenied, code, "%s", hint)
	}
}
