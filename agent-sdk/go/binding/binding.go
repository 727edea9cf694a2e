// Package binding reads Mayfly's binding: whom an agent acts for, who spawned it, what it may do, and how long at most.
//
// This package decodes and verifies nothing. First verify the credential with a SPIFFE library such as go-spiffe (chain or
// signature, times, audience, trust domain). Then pass the verified data to this package: the leaf of the chain to
// [FromCertificate], the claims of the token to [FromClaims].
//
// The caller has to check three more things, which need more than the binding:
//
//   - Is it revoked? Compare its stamps with the cuts of the same incarnation, which only Mayfly's feed delivers.
//   - Does the credential end at LeaseExpiresAt or earlier, and is its SPIFFE ID absent from its own Chain?
//   - Is the bearer an agent? An /agent/ id without a binding is not a credential, and only agents carry a binding.
//
// Any input that an issuer would not have written exactly so is an [Error]; a binding is never returned with a part left out.
// agent-sdk/verify/binding.md describes the format, and the vectors in agent-sdk/verify/tests/vectors test it.
package binding

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"regexp"
	"slices"
	"strings"
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

// DefaultOID is the OID of the binding, unless the issuer's setting credentials.binding_oid changes it.
func DefaultOID() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1}
}

// Code is the stable part of an [Error].
type Code string

const (
	// Missing: the credential has no binding.
	Missing Code = "missing"
	// Malformed: it is not encoded as an issuer encodes it.
	Malformed Code = "malformed"
	// Inconsistent: its fields contradict each other.
	Inconsistent Code = "inconsistent"
	// TooLarge: it is longer than the longest binding an issuer writes.
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
	// Subject is 16 bytes, which a cut of this subject has too.
	Subject [16]byte
	// Since is a revision. The credential is revoked if a cut of the subject has a higher before.
	Since uint64
}

// User is a person, as their OpenID provider names them; Sub may be a pseudonym.
type User struct {
	Iss, Sub string
}

// Binding is what both credentials of an agent say beyond their SPIFFE ID.
type Binding struct {
	// Incarnation is the UUID of the journal's epoch that the revisions belong to.
	Incarnation [16]byte
	// Revision is the position of the record that allowed this credential.
	Revision uint64
	// Stamps are the subjects that it relies on; at least one, no subject twice.
	Stamps []Stamp
	// Delegation is the SHA-256 of the delegation's record; nil for an autonomous agent.
	Delegation *[32]byte
	// User is the user it acts for; nil for an autonomous agent.
	User *User
	// Chain holds the SPIFFE IDs from the parent up to the root workload; at least one.
	Chain []string
	// Mode is Delegated or Autonomous.
	Mode string
	// Scopes are sorted, without duplicates; there may be none.
	Scopes []string
	// LeaseExpiresAt is the end of its lease, in Unix seconds.
	LeaseExpiresAt uint64
}

// Parent is the SPIFFE ID of the workload or agent that spawned this agent.
func (b *Binding) Parent() string { return b.Chain[0] }

// Root is the SPIFFE ID of the root workload.
func (b *Binding) Root() string { return b.Chain[len(b.Chain)-1] }

// Depth is how many levels it is below the root workload; 1 directly below it.
func (b *Binding) Depth() int { return len(b.Chain) }

// FromCertificate reads the binding of a certificate under the default OID. The certificate is not verified.
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

// FromClaims reads the binding among all claims of a token, under the default OID. The token is not verified.
//
// Numbers may be json.Number, or float64, which is the default of encoding/json. A float64 is refused from 2⁵³ on, where it no
// longer is the number that was written; and it does not show whether 7 or 7.0 was written.
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

// check verifies the rules between the fields.
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

// The patterns end in `\z` and not `$`. Package regexp has no repeat above 1000, so the trust domain's length is checked apart.
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
