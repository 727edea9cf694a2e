package mayfly

// A cache of the tokens of one identity, one for each audience and scope.

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// Most cached tokens. When it is full, the token that expires first is removed.
	most = 64
	// A token that expires within this time is not returned, because the receiver's clock may be ahead.
	last = 5 * time.Second
)

type token struct {
	text      string
	expiresAt time.Time
	// From then on a new one is obtained.
	half time.Time
}

// What a token is for.
type key struct {
	audience string
	// Whether it is an access token, and for which scopes; otherwise a JWT-SVID.
	access bool
	scopes string
}

// Who obtains a token. Nobody else obtains another meanwhile.
type obtaining struct {
	done chan struct{}
	text string
	err  error
}

type cache struct {
	now func() time.Time
	// Guards the two below, for a look or a change; never while a token is obtained.
	mutex     sync.Mutex
	tokens    map[key]token
	obtaining map[key]*obtaining
}

func newCache() *cache {
	return &cache{now: func() time.Time { return now() }, tokens: map[key]token{}, obtaining: map[key]*obtaining{}}
}

// What is asked for in one spelling, and its scopes; nil for a JWT-SVID.
func keyOf(audience string, scope []string) (key, []string) {
	if len(scope) == 0 {
		return key{audience: audience}, nil
	}
	scopes := strings.Fields(strings.Join(scope, " "))
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	return key{audience, true, strings.Join(scopes, " ")}, scopes
}

func (c *cache) fresh(of key) (string, bool) {
	return c.get(of, func(t token, now time.Time) bool { return now.Before(t.half) })
}

func (c *cache) holding(of key) (string, bool) {
	return c.get(of, func(t token, now time.Time) bool { return now.Add(last).Before(t.expiresAt) })
}

func (c *cache) get(of key, good func(token, time.Time) bool) (string, bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	t, found := c.tokens[of]
	return t.text, found && good(t, c.now())
}

func (c *cache) put(of key, text string, expiresAt time.Time) {
	now := c.now()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.tokens, of)
	var soonest *key
	for other, t := range c.tokens {
		if !now.Before(t.expiresAt) {
			delete(c.tokens, other)
		} else if soonest == nil || t.expiresAt.Before(c.tokens[*soonest].expiresAt) {
			soonest = &other
		}
	}
	if acceptedOnce(text, of) {
		return
	}
	if len(c.tokens) >= most && soonest != nil {
		delete(c.tokens, *soonest)
	}
	c.tokens[of] = token{text, expiresAt, now.Add(max(expiresAt.Sub(now), 0) / 2)}
}

// Forgets access tokens: one that is bound to a certificate is of no use with its successor.
func (c *cache) forgetAccess() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for of := range c.tokens {
		if of.access {
			delete(c.tokens, of)
		}
	}
}

func (c *cache) clear() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	clear(c.tokens)
}

// Obtains a token, or waits for whoever obtains the same one already.
func (c *cache) once(ctx context.Context, of key, obtain func() (string, time.Time, error)) (string, error) {
	c.mutex.Lock()
	running, found := c.obtaining[of]
	// Another one may have obtained it since the caller looked.
	if t, known := c.tokens[of]; !found && known && c.now().Before(t.half) {
		c.mutex.Unlock()
		return t.text, nil
	}
	if !found {
		running = &obtaining{done: make(chan struct{})}
		c.obtaining[of] = running
	}
	c.mutex.Unlock()
	if !found {
		// Apart from the caller, who may go away: others wait for the same token.
		go func() {
			text, expiresAt, err := obtain()
			if err == nil {
				c.put(of, text, expiresAt)
			}
			running.text, running.err = text, err
			c.mutex.Lock()
			delete(c.obtaining, of)
			c.mutex.Unlock()
			close(running.done)
		}()
	}
	select {
	case <-running.done:
		if found && running.err == nil && acceptedOnce(running.text, of) {
			// It is for whoever obtained it.
			text, _, err := obtain()
			return text, err
		}
		return running.text, running.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Whether a token would be refused if it was given out again: one that is for a single use, and a JWT-SVID for the issuer itself.
func acceptedOnce(text string, of key) bool {
	claims := claimsOf(text)
	if once, found := claims["single_use"]; found && once != false {
		return true
	}
	iss, _ := claims["iss"].(string)
	return iss != "" && of == (key{audience: iss})
}

// What a token of ours says; nothing if it cannot be read. Its signature is for those who receive it.
func claimsOf(token string) map[string]any {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	var claims map[string]any
	if json.Unmarshal(body, &claims) != nil {
		return nil
	}
	return claims
}
