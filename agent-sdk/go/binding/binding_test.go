package binding_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"math/big"
	mathrand "math/rand"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"mayfly.dev/agent-sdk/go/binding"
)

// What the crate writes, and what it is held to.
const vectorFolder = "../../verify/tests/vectors"

type vector struct {
	Name  string
	Code  binding.Code
	DER   *string
	Claim any
}

func vectors(t *testing.T, names ...string) []vector {
	t.Helper()
	var all []vector
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(vectorFolder, name))
		check(t, err)
		var found []vector
		parse(t, text, &found)
		if len(found) == 0 {
			t.Fatalf("%s is empty", name)
		}
		all = append(all, found...)
	}
	return all
}

// Numbers stay as they are written.
func parse(t *testing.T, text []byte, into any) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	check(t, decoder.Decode(into))
}

func (v vector) der(t *testing.T) []byte {
	t.Helper()
	der, err := hex.DecodeString(*v.DER)
	check(t, err)
	return der
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func number(n uint64) json.Number { return json.Number(fmt.Sprint(n)) }

func uuid(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func anys(texts []string) []any {
	list := []any{}
	for _, text := range texts {
		list = append(list, text)
	}
	return list
}

// The claim that says the same, field by field.
func asClaim(b *binding.Binding) any {
	stamps := []any{}
	for _, stamp := range b.Stamps {
		stamps = append(stamps, []any{hex.EncodeToString(stamp.Subject[:]), number(stamp.Since)})
	}
	claim := map[string]any{
		"v": number(1), "incarnation": uuid(b.Incarnation), "revision": number(b.Revision), "stamps": stamps, "chain": anys(b.Chain),
		"mode": b.Mode, "scopes": anys(b.Scopes), "lease_expires_at": number(b.LeaseExpiresAt),
	}
	if b.Delegation != nil {
		claim["delegation_id"] = hex.EncodeToString(b.Delegation[:])
	}
	if b.User != nil {
		claim["user"] = map[string]any{"iss": b.User.Iss, "sub": b.User.Sub}
	}
	return claim
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
}

func refused(t *testing.T, code binding.Code, b *binding.Binding, err error) {
	t.Helper()
	var refusal *binding.Error
	if !errors.As(err, &refusal) || refusal.Code != code || b != nil {
		t.Fatalf("expected %s, got %v and %v", code, err, b)
	}
}

func TestWhatIsAcceptedReadsTheSameFromBothEncodings(t *testing.T) {
	for _, v := range vectors(t, "accepted.json") {
		t.Run(v.Name, func(t *testing.T) {
			b, err := binding.FromDER(v.der(t))
			check(t, err)
			same(t, asClaim(b), v.Claim)
			claimed, err := binding.FromClaims(map[string]any{"sub": "x", "urn:oid:1.3.6.1.4.1.32473.1": v.Claim})
			check(t, err)
			same(t, claimed, b)
			certified, err := binding.FromCertificate(certificate(t, extension(v.der(t))))
			check(t, err)
			same(t, certified, b)
			chain := v.Claim.(map[string]any)["chain"].([]any)
			same(t, []any{b.Parent(), b.Root(), b.Depth()}, []any{chain[0], chain[len(chain)-1], len(chain)})
		})
	}
}

func TestWhatIsRefusedIsRefusedForItsOwnFault(t *testing.T) {
	for _, v := range vectors(t, "refused.json") {
		t.Run(v.Name, func(t *testing.T) {
			if v.DER != nil {
				b, err := binding.FromDER(v.der(t))
				refused(t, v.Code, b, err)
				return
			}
			b, err := binding.FromClaim(v.Claim)
			refused(t, v.Code, b, err)
		})
	}
}

func TestWhatOnlyThisLanguageCanSay(t *testing.T) {
	with := func(field string, value any) map[string]any {
		var claim map[string]any
		text, err := json.Marshal(vectors(t, "accepted.json")[0].Claim)
		check(t, err)
		// As most libraries parse it.
		check(t, json.Unmarshal(text, &claim))
		claim[field] = value
		return claim
	}
	b, err := binding.FromClaim(with("revision", float64(1<<53-1)))
	check(t, err)
	same(t, b.Revision, uint64(1<<53-1))
	b, err = binding.FromClaim(with("lease_expires_at", 0.0))
	check(t, err)
	same(t, b.LeaseExpiresAt, uint64(0))
	for _, value := range []any{
		float64(1 << 53), 12.5, -1.0, math.NaN(), math.Inf(1), json.Number("18446744073709551616"), json.Number("1e2"), json.Number("-0"),
		json.Number(""), "12", true, nil, 12,
	} {
		b, err := binding.FromClaim(with("revision", value))
		refused(t, binding.Malformed, b, err)
	}
	// A certificate has no room for it.
	longest := "spiffe://td.example/" + strings.Repeat("a", 2028)
	b, err = binding.FromClaim(with("chain", []any{longest}))
	check(t, err)
	same(t, b.Root(), longest)
	for _, value := range []any{[]string{"files:read"}, []any{"\xff"}, map[string]any{}} {
		b, err := binding.FromClaim(with("scopes", value))
		refused(t, binding.Malformed, b, err)
	}
}

func TestWhateverTheBytesReadingIsABindingOrAnError(t *testing.T) {
	chance := mathrand.New(mathrand.NewSource(1))
	good := vectors(t, "accepted.json")[0].der(t)
	read := 0
	for range 20_000 {
		damaged := append([]byte{}, good...)
		for range 1 + chance.Intn(3) {
			damaged[chance.Intn(len(damaged))] = byte(chance.Intn(256))
		}
		b, err := binding.FromDER(damaged)
		if err != nil {
			continue
		}
		read++
		claimed, err := binding.FromClaim(asClaim(b))
		check(t, err)
		same(t, claimed, b)
	}
	if read == 0 {
		t.Fatal("nothing was read")
	}
}

func FuzzFromDER(f *testing.F) {
	text, err := os.ReadFile(filepath.Join(vectorFolder, "accepted.json"))
	if err != nil {
		f.Fatal(err)
	}
	var found []vector
	if err := json.Unmarshal(text, &found); err != nil {
		f.Fatal(err)
	}
	for _, v := range found {
		der, _ := hex.DecodeString(*v.DER)
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		if b, err := binding.FromDER(der); (b == nil) == (err == nil) {
			t.Fatalf("%v and %v", b, err)
		}
	})
}

func extension(value []byte) pkix.Extension {
	return pkix.Extension{Id: binding.DefaultOID(), Value: value}
}

func certificate(t *testing.T, extensions ...pkix.Extension) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), ExtraExtensions: extensions}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return cert
}

func TestOnlyOneExtensionThatIsNotCriticalCounts(t *testing.T) {
	good := extension(vectors(t, "accepted.json")[0].der(t))
	b, err := binding.FromCertificate(certificate(t))
	refused(t, binding.Missing, b, err)
	critical := good
	critical.Critical = true
	b, err = binding.FromCertificate(certificate(t, critical))
	refused(t, binding.Malformed, b, err)
	// crypto/x509 parses no such certificate; others may fill the struct.
	b, err = binding.FromCertificate(&x509.Certificate{Extensions: []pkix.Extension{good, good}})
	refused(t, binding.Malformed, b, err)
	damaged := extension(append(append([]byte{}, good.Value...), 0))
	b, err = binding.FromCertificate(certificate(t, damaged))
	refused(t, binding.Malformed, b, err)

	elsewhere := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 7}
	moved := pkix.Extension{Id: elsewhere, Value: good.Value}
	b, err = binding.FromCertificate(certificate(t, moved))
	refused(t, binding.Missing, b, err)
	_, err = binding.FromCertificateAt(certificate(t, moved), elsewhere)
	check(t, err)
	claims := map[string]any{"urn:oid:1.3.6.1.4.1.7": vectors(t, "accepted.json")[0].Claim}
	b, err = binding.FromClaims(claims)
	refused(t, binding.Missing, b, err)
	_, err = binding.FromClaimsAt(claims, elsewhere)
	check(t, err)
}

// Both credentials in each folder of MAYFLY_LIVE, beside what `mayfly verify -o json` said of them.
func TestLive(t *testing.T) {
	live := os.Getenv("MAYFLY_LIVE")
	if live == "" {
		t.Skip("MAYFLY_LIVE is not set: no running issuer")
	}
	certificates, err := filepath.Glob(filepath.Join(live, "*", "svid.pem"))
	check(t, err)
	if len(certificates) < 2 {
		t.Fatalf("%d credentials in %s", len(certificates), live)
	}
	for _, path := range certificates {
		folder := filepath.Dir(path)
		t.Run(filepath.Base(folder), func(t *testing.T) {
			text, err := os.ReadFile(path)
			check(t, err)
			block, _ := pem.Decode(text)
			cert, err := x509.ParseCertificate(block.Bytes)
			check(t, err)
			b, err := binding.FromCertificate(cert)
			check(t, err)
			sameAsTold(t, b, filepath.Join(folder, "x509.json"), cert.URIs[0].String())

			text, err = os.ReadFile(filepath.Join(folder, "svid.jwt"))
			check(t, err)
			body, err := base64.RawURLEncoding.DecodeString(strings.Split(string(text), ".")[1])
			check(t, err)
			var claims map[string]any
			check(t, json.Unmarshal(body, &claims))
			b, err = binding.FromClaims(claims)
			check(t, err)
			sameAsTold(t, b, filepath.Join(folder, "jwt.json"), claims["sub"].(string))
		})
	}
}

func sameAsTold(t *testing.T, b *binding.Binding, file, holder string) {
	t.Helper()
	text, err := os.ReadFile(file)
	check(t, err)
	var told struct{ Binding map[string]any }
	parse(t, text, &told)
	// Of the holder, and not in the binding.
	same(t, told.Binding["agent_id"], any(holder))
	delete(told.Binding, "agent_id")
	delete(told.Binding, "class")
	stamps := []any{}
	for _, stamp := range b.Stamps {
		stamps = append(stamps, map[string]any{"subject": hex.EncodeToString(stamp.Subject[:]), "since": number(stamp.Since)})
	}
	var delegation, user any
	if b.Delegation != nil {
		delegation = hex.EncodeToString(b.Delegation[:])
	}
	if b.User != nil {
		user = map[string]any{"iss": b.User.Iss, "sub": b.User.Sub}
	}
	same(t, told.Binding, map[string]any{
		"parent_id": b.Parent(), "root_id": b.Root(), "delegation_id": delegation, "user": user, "depth": number(uint64(b.Depth())),
		"mode": b.Mode, "scopes": anys(b.Scopes), "lease_expires_at": time.Unix(int64(b.LeaseExpiresAt), 0).UTC().Format(time.RFC3339),
		"revision": number(b.Revision), "incarnation": uuid(b.Incarnation), "chain": anys(b.Chain), "stamps": stamps,
	})
}
