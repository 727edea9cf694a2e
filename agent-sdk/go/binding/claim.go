package binding

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// claim takes values out of parsed JSON. It keeps the first error in err; every value after that is zero.
type claim struct{ err error }

func (c *claim) fail(format string, args ...any) {
	if c.err == nil {
		c.err = malformed(format, args...)
	}
}

func (c *claim) object(value any, what string, required, optional []string) map[string]any {
	object, ok := value.(map[string]any)
	if !ok {
		c.fail("%s is no object", what)
		return nil
	}
	for _, name := range required {
		if _, found := object[name]; !found {
			c.fail("%s lacks %s", what, name)
		}
	}
	for name := range object {
		if !slices.Contains(required, name) && !slices.Contains(optional, name) {
			c.fail("%s has a field that is unknown", what)
		}
	}
	return object
}

func (c *claim) list(value any, what string) []any {
	list, ok := value.([]any)
	if !ok {
		c.fail("%s is no list", what)
	}
	return list
}

func (c *claim) text(value any, what string) string {
	text, ok := value.(string)
	if !ok || !utf8.ValidString(text) {
		c.fail("%s is no text", what)
		return ""
	}
	return text
}

func (c *claim) texts(value any, what string) []string {
	texts := []string{}
	for _, item := range c.list(value, what) {
		texts = append(texts, c.text(item, what))
	}
	return texts
}

func (c *claim) hex(to []byte, text, what string) {
	// DecodeString accepts both cases, and an issuer writes lower case only.
	octets, err := hex.DecodeString(text)
	if err != nil || len(octets) != len(to) || text != strings.ToLower(text) {
		c.fail("%s is not %d octets in lower-case hex", what, len(to))
		return
	}
	copy(to, octets)
}

func (c *claim) integer(value any, what string) uint64 {
	switch number := value.(type) {
	case json.Number:
		// ParseUint accepts no sign, decimal point or exponent.
		if n, err := strconv.ParseUint(number.String(), 10, 64); err == nil {
			return n
		}
	case float64:
		if n := uint64(number); number >= 0 && number < 1<<53 && float64(n) == number {
			return n
		}
	}
	c.fail("%s is no integer, or does not fit", what)
	return 0
}

// sizeOf returns the length of a checked claim in bytes of JSON without spaces. json.Marshal would give another length, because
// it escapes more characters.
func sizeOf(value any) int {
	switch value := value.(type) {
	case map[string]any:
		size := 1 + max(len(value), 1)
		for name, item := range value {
			size += sizeOf(name) + len(":") + sizeOf(item)
		}
		return size
	case []any:
		size := 1 + max(len(value), 1)
		for _, item := range value {
			size += sizeOf(item)
		}
		return size
	case string:
		size := len(`""`)
		for _, r := range value {
			switch {
			case strings.ContainsRune("\"\\\b\f\n\r\t", r):
				size += 2
			case r < ' ':
				size += len(`\u0000`)
			default:
				size += utf8.RuneLen(r)
			}
		}
		return size
	case json.Number:
		return len(value)
	case float64:
		return len(strconv.FormatUint(uint64(value), 10))
	}
	return 0
}
