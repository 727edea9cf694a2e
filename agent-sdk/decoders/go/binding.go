// Package binding reads Mayfly's binding: whom an agent acts for, who spawned it, what it may do, and how long at most.
//
// It decodes, and proves nothing. First verify the credential with a SPIFFE library such as go-spiffe (chain or signature,
// times, audience, trust domain); then give what was verified to this package: the leaf of the chain to [FromCertificate],
// the claims of the token to [FromClaims].
//
// Three things are left to the caller, because they need more than the binding:
//
//   - whether it is revoked: hold its stamps against the cuts of the same incarnation, which only Mayfly's feed tells;
//   - whether the credential ends by LeaseExpiresAt at the latest, and its SPIFFE ID does not stand in its own Chain;
//   - whether the bearer is an agent: an /agent/ id without a binding is no credential, and nobody else carries one.
//
// Whatever is not exactly what an issuer writes is an [Error]: never a binding with something left out. The format is
// described in agent-sdk/verify/binding.md, and held by the vectors in agent-sdk/verify/tests/vectors.
package binding

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// MaxDER is the longest extension, in bytes.
	MaxDER = 2048
	// MaxClaim is the longest claim, in bytes of JSON without spaces.
	MaxClaim = 4096
	// MaxChain is the longest chain: sixteen agents and their root workload.
	MaxChain = 17
)

// Modes of an agent.
const (
	Delegated  = "delegated"
	Autonomous = "autonomous"
)

// DefaultOID is where the binding stands, unless the issuer's credentials.binding_oid says otherwise.
func DefaultOID() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1}
}

// Code is the stable part of an [Error].
type Code string

const (
	// Missing: the credential has no binding.
	Missing Code = "missing"
	// Malformed: not of the one form there is.
	Malformed Code = "malformed"
	// Inconsistent: it contradicts itself.
	Inconsistent Code = "inconsistent"
	// TooLarge: longer than any issuer writes.
	TooLarge Code = "too_large"
)

// Error says why a binding is refused.
type Error struct {
	Code Code
	What string
}

func (e *Error) Error() string {
	return fmt.Sprintf("the binding is %s: %s", e.Code, e.What)
}

func malformed(format string, args ...any) error {
	return &Error{Malformed, fmt.Sprintf(format, args...)}
}

// Stamp says that the credential relies on this subject through the record at revision Since.
type Stamp struct {
	// Subject is 16 bytes, which are the same in a cut.
	Subject [16]byte
	// Since kills the credential when it is below the before of a cut of the subject.
	Since uint64
}

// User is a person, as their OpenID provider names them, or a pseudonym in place of Sub.
type User struct {
	Iss, Sub string
}

// Binding is what both credentials of an agent say beyond their SPIFFE ID.
type Binding struct {
	// Incarnation is a UUID: which life of the journal the revisions belong to.
	Incarnation [16]byte
	// Revision is the position of the record that allowed this credential.
	Revision uint64
	// Stamps is what it relies on; at least one, no subject twice.
	Stamps []Stamp
	// Delegation is the SHA-256 of the delegation's record; nil for an autonomous agent.
	Delegation *[32]byte
	// User is whom it acts for; nil for an autonomous agent.
	User *User
	// Chain is SPIFFE IDs from the parent up to the root workload; at least one.
	Chain []string
	// Mode is Delegated or Autonomous.
	Mode string
	// Scopes is what it may do; sorted, none twice, perhaps none.
	Scopes []string
	// LeaseExpiresAt is in unix seconds.
	LeaseExpiresAt uint64
}

// Parent is the SPIFFE ID of who spawned the agent.
func (b *Binding) Parent() string { return b.Chain[0] }

// Root is the SPIFFE ID of the workload at the top.
func (b *Binding) Root() string { return b.Chain[len(b.Chain)-1] }

// Depth is how many levels it is below the root workload; 1 directly below it.
func (b *Binding) Depth() int { return len(b.Chain) }

// FromCertificate reads the binding of a certificate under the default OID. It proves nothing of the certificate.
func FromCertificate(cert *x509.Certificate) (*Binding, error) {
	return FromCertificateAt(cert, DefaultOID())
}

// FromCertificateAt is [FromCertificate] under another OID.
func FromCertificateAt(cert *x509.Certificate, oid asn1.ObjectIdentifier) (*Binding, error) {
	var value []byte
	found := false
	for _, extension := range cert.Extensions {
		switch {
		case !extension.Id.Equal(oid):
		case extension.Critical:
			return nil, malformed("its extension is critical")
		case found:
			return nil, malformed("the certificate has the extension %s more than once", oid)
		default:
			value, found = extension.Value, true
		}
	}
	if !found {
		return nil, &Error{Missing, fmt.Sprintf("the certificate has no extension %s", oid)}
	}
	return FromDER(value)
}

// FromClaims reads the binding among all claims of a token, under the default OID. It proves nothing of the token.
//
// Numbers may be json.Number, or float64 as encoding/json gives them unless told otherwise. The latter are refused from 2⁵³
// on, where they are no longer what was written; and whether 7 or 7.0 was written they do not tell.
func FromClaims(claims map[string]any) (*Binding, error) {
	return FromClaimsAt(claims, DefaultOID())
}

// FromClaimsAt is [FromClaims] under another OID.
func FromClaimsAt(claims map[string]any, oid asn1.ObjectIdentifier) (*Binding, error) {
	name := "urn:oid:" + oid.String()
	value, found := claims[name]
	if !found {
		return nil, &Error{Missing, "the token has no claim " + name}
	}
	return FromClaim(value)
}

// FromDER reads the value of the extension.
func FromDER(bytes []byte) (*Binding, error) {
	if len(bytes) > MaxDER {
		return nil, &Error{TooLarge, fmt.Sprintf("%d bytes, and %d are allowed", len(bytes), MaxDER)}
	}
	outside := der{rest: bytes}
	fields := outside.inside(tagSequence)
	outside.end()
	if version := fields.unsigned(); version != 1 {
		fields.fail("version %d is unknown", version)
	}
	b := &Binding{Mode: Delegated}
	copy(b.Incarnation[:], fields.octets(16))
	b.Revision = fields.unsigned()
	for stamps := fields.inside(tagSequence); stamps.more(); {
		stamp := stamps.inside(tagSequence)
		var s Stamp
		copy(s.Subject[:], stamp.octets(16))
		s.Since = stamp.unsigned()
		stamp.end()
		b.Stamps = append(b.Stamps, s)
	}
	if fields.next(tagged0) {
		tagged := fields.inside(tagged0)
		b.Delegation = new([32]byte)
		copy(b.Delegation[:], tagged.octets(32))
		tagged.end()
	}
	if fields.next(tagged1) {
		tagged := fields.inside(tagged1)
		names := tagged.inside(tagSequence)
		tagged.end()
		b.User = &User{names.text(), names.text()}
		names.end()
	}
	b.Chain = fields.texts()
	if fields.boolean() {
		b.Mode = Autonomous
	}
	b.Scopes = fields.texts()
	b.LeaseExpiresAt = fields.unsigned()
	fields.end()
	if err := fields.failed(); err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	return b, nil
}

// FromClaim reads the value of the claim, as encoding/json gives it.
func FromClaim(value any) (*Binding, error) {
	var c claim
	fields := c.object(value, "the claim", []string{"v", "incarnation", "revision", "stamps", "chain", "mode", "scopes", "lease_expires_at"},
		[]string{"delegation_id", "user"})
	if c.err != nil {
		return nil, c.err
	}
	if version := c.integer(fields["v"], "v"); version != 1 {
		c.fail("version %d is unknown", version)
	}
	b := &Binding{
		Revision:       c.integer(fields["revision"], "revision"),
		Mode:           c.text(fields["mode"], "mode"),
		Chain:          c.texts(fields["chain"], "chain"),
		Scopes:         c.texts(fields["scopes"], "scopes"),
		LeaseExpiresAt: c.integer(fields["lease_expires_at"], "lease_expires_at"),
	}
	if b.Mode != Delegated && b.Mode != Autonomous {
		c.fail("its mode is unknown")
	}
	incarnation := c.text(fields["incarnation"], "incarnation")
	if !isUUID.MatchString(incarnation) {
		c.fail("incarnation is no UUID as it is written")
	}
	c.hex(b.Incarnation[:], strings.ReplaceAll(incarnation, "-", ""), "incarnation")
	for _, stamp := range c.list(fields["stamps"], "stamps") {
		pair := c.list(stamp, "a stamp")
		if len(pair) != 2 {
			c.fail("a stamp is a subject and a revision")
			break
		}
		s := Stamp{Since: c.integer(pair[1], "since")}
		c.hex(s.Subject[:], c.text(pair[0], "a subject"), "a subject")
		b.Stamps = append(b.Stamps, s)
	}
	if id, found := fields["delegation_id"]; found {
		b.Delegation = new([32]byte)
		c.hex(b.Delegation[:], c.text(id, "delegation_id"), "delegation_id")
	}
	if user, found := fields["user"]; found {
		names := c.object(user, "the user", []string{"iss", "sub"}, nil)
		b.User = &User{c.text(names["iss"], "iss"), c.text(names["sub"], "sub")}
	}
	if c.err != nil {
		return nil, c.err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	// After the checks, so that only the fields above are measured.
	if size := sizeOf(value); size > MaxClaim {
		return nil, &Error{TooLarge, fmt.Sprintf("%d bytes, and %d are allowed", size, MaxClaim)}
	}
	return b, nil
}

// The rules that hold between the fields.
func (b *Binding) check() error {
	bad := func(what string) error { return &Error{Inconsistent, what} }
	if len(b.Chain) == 0 || len(b.Chain) > MaxChain {
		return bad(fmt.Sprintf("the chain must hold 1 to %d ids", MaxChain))
	}
	for at, id := range b.Chain {
		if !isSPIFFEID(id) {
			return bad("the chain holds something that is no SPIFFE ID")
		}
		if isRoot := at == len(b.Chain)-1; isAgent.MatchString(id) == isRoot {
			return bad("the chain must be agents below one workload")
		}
	}
	delegated := b.Mode == Delegated
	if (b.User != nil) != delegated || (b.Delegation != nil) != delegated {
		return bad("a delegated agent has a user and a delegation, an autonomous one has neither")
	}
	if b.User != nil && (b.User.Iss == "" || b.User.Sub == "") {
		return bad("the user lacks an issuer or a subject")
	}
	if len(b.Stamps) == 0 {
		return bad("there are no stamps")
	}
	seen := make(map[[16]byte]bool, len(b.Stamps))
	for _, stamp := range b.Stamps {
		if stamp.Since > b.Revision {
			return bad("a stamp is younger than the credential")
		}
		if seen[stamp.Subject] {
			return bad("two stamps have one subject")
		}
		seen[stamp.Subject] = true
	}
	for at := 1; at < len(b.Scopes); at++ {
		if b.Scopes[at-1] >= b.Scopes[at] {
			return bad("scopes must be sorted, none twice")
		}
	}
	return nil
}

// `\z` and not `$`, and no repeat above 1000, which package regexp does not know: the trust domain's length is checked apart.
const uuid = `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`

var (
	isUUID  = regexp.MustCompile(`\A` + uuid + `\z`)
	isID    = regexp.MustCompile(`\Aspiffe://([a-z0-9._-]+)((?:/[A-Za-z0-9._-]+)*)\z`)
	isAgent = regexp.MustCompile(`\Aspiffe://[a-z0-9._-]+/agent/[a-z][a-z0-9-]{0,31}/` + uuid + `\z`)
)

func isSPIFFEID(text string) bool {
	if len(text) > 2048 {
		return false
	}
	parts := isID.FindStringSubmatch(text)
	if parts == nil || len(parts[1]) > 255 {
		return false
	}
	return !slices.ContainsFunc(strings.Split(parts[2], "/"), func(s string) bool { return s == "." || s == ".." })
}

// claim takes values out of parsed JSON; the first that is wrong stays in err, and what comes after it is zero.
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
	// DecodeString takes both cases; one is written.
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
		// ParseUint takes neither sign, point nor exponent.
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

// sizeOf is how many bytes of JSON without spaces a checked claim is. Marshal would count others: it escapes more.
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

const (
	tagBoolean  = 0x01
	tagInteger  = 0x02
	tagOctets   = 0x04
	tagUTF8     = 0x0c
	tagSequence = 0x30
	tagged0     = 0xa0
	tagged1     = 0xa1
)

// der takes elements off the front, strictly: tags of one byte, shortest lengths, nothing left over. The first fault stays in
// err, which all readers inside one another share, and what comes after it is zero.
//
// encoding/asn1 is not strict enough: it passes over unknown fields at the end of a sequence.
type der struct {
	rest []byte
	err  *error
}

func (d *der) fail(format string, args ...any) {
	if d.err == nil {
		d.err = new(error)
	}
	if *d.err == nil {
		*d.err = malformed(format, args...)
	}
	d.rest = nil
}

func (d *der) failed() error {
	if d.err == nil {
		return nil
	}
	return *d.err
}

func (d *der) next(tag byte) bool {
	return len(d.rest) > 0 && d.rest[0] == tag
}

// more also ends a loop when something inside it failed.
func (d *der) more() bool {
	return len(d.rest) > 0 && d.failed() == nil
}

func (d *der) end() {
	if len(d.rest) > 0 {
		d.fail("something stands where nothing should")
	}
}

func (d *der) take(tag byte) []byte {
	if !d.next(tag) {
		d.fail("expected the tag 0x%02x", tag)
		return nil
	}
	if len(d.rest) < 2 {
		d.fail("a length is missing")
		return nil
	}
	length, head := int(d.rest[1]), 2
	if length >= 0x80 {
		// Two octets count to 65535, and MaxDER is below it.
		head += length - 0x80
		if head > 4 || len(d.rest) < head {
			d.fail("a length is too long or cut short")
			return nil
		}
		length = 0
		for _, octet := range d.rest[2:head] {
			length = length<<8 | int(octet)
		}
		// The shortest form: no leading zero, and nothing that fits in seven bits; so none that is indefinite either.
		if length < 0x80 || d.rest[2] == 0 {
			d.fail("a length is indefinite, or longer than needed")
			return nil
		}
	}
	if len(d.rest)-head < length {
		d.fail("it ends within an element")
		return nil
	}
	content := d.rest[head : head+length]
	d.rest = d.rest[head+length:]
	return content
}

func (d *der) inside(tag byte) *der {
	content := d.take(tag)
	if d.err == nil {
		d.err = new(error)
	}
	return &der{content, d.err}
}

func (d *der) texts() []string {
	texts := []string{}
	for items := d.inside(tagSequence); items.more(); {
		texts = append(texts, items.text())
	}
	return texts
}

func (d *der) text() string {
	content := d.take(tagUTF8)
	if !utf8.Valid(content) {
		d.fail("a text is no UTF-8")
		return ""
	}
	return string(content)
}

func (d *der) octets(length int) []byte {
	content := d.take(tagOctets)
	if len(content) != length {
		d.fail("expected %d octets", length)
		return nil
	}
	return content
}

func (d *der) unsigned() uint64 {
	content := d.take(tagInteger)
	// A leading zero stands only before what would be negative without it.
	switch {
	case len(content) == 0 || content[0] >= 0x80:
		d.fail("an integer is negative or empty")
		return 0
	case len(content) > 1 && content[0] == 0 && content[1] < 0x80:
		d.fail("an integer is padded")
		return 0
	case len(content) > 9 || len(content) == 9 && content[0] != 0:
		d.fail("an integer is over 64 bits")
		return 0
	}
	var n uint64
	for _, octet := range content {
		n = n<<8 | uint64(octet)
	}
	return n
}

func (d *der) boolean() bool {
	content := d.take(tagBoolean)
	if len(content) != 1 || content[0] != 0 && content[0] != 0xff {
		d.fail("a boolean is neither FALSE nor TRUE")
		return false
	}
	return content[0] == 0xff
}
