// Prints SPIFFE IDs, X.509-SVIDs and JWT-SVIDs, good and bad, as JSON, each with what go-spiffe makes of it.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// ID is that of what go-spiffe accepts, and empty for what it refuses.
type vector struct {
	Name, Text, ID    string
	Certificates, Key []byte
}

const audience = "https://search.example"

func main() {
	bundle, keys := bundle()
	out := map[string]any{
		"ids":     ids(),
		"x509":    certificates(),
		"jwt":     tokens(bundle, keys),
		"bundles": map[string]json.RawMessage{"td.example": must(bundle.Marshal())},
	}
	check(json.NewEncoder(os.Stdout).Encode(out))
}

func ids() []vector {
	long := strings.Repeat("a", 255)
	texts := []string{
		"spiffe://td.example", "spiffe://td.example/x", "spiffe://td.example/a/b/c", "spiffe://1.2.3.4/x", "spiffe://a_b-c.d/A.b_C-1", "spiffe://" + long + "/x",
		"spiffe://td.example/...", "spiffe://td.example/.x", "spiffe://td.example/" + strings.Repeat("a", 1900),
		"", "spiffe://", "spiffe:///x", "spiffe:/td.example", "SPIFFE://td.example/x", "Spiffe://td.example", "https://td.example/x", "td.example/x", "spiffe://TD.example/x",
		"spiffe://td.example/", "spiffe://td.example/x/", "spiffe://td.example//x", "spiffe://td.example/x//y", "spiffe://td.example/.", "spiffe://td.example/..",
		"spiffe://td.example/x/./y", "spiffe://td.example/x/../y", "spiffe://td.example/%41", "spiffe://td.example/a b", "spiffe://td.example/ä", "spiffe://tä.example/x",
		"spiffe://td.example:80/x", "spiffe://u@td.example/x", "spiffe://td.example/x?y", "spiffe://td.example/x#y", "spiffe://td.example?x", "spiffe://td.example/x\n",
		"\nspiffe://td.example/x", " spiffe://td.example/x", "spiffe://td.example/x ", "spiffe://td.example/x\x00", "spiffe://[::1]/x", "spiffe://td.example/a:b",
		"spiffe://td.example/a@b", "spiffe://td.example/a~b", "spiffe://td.example/a+b", "spiffe://td.example\\x", "spiffe://-/x", "spiffe://./x", "spiffe://td..example/x",
	}
	var all []vector
	for _, text := range texts {
		v := vector{Name: text, Text: text}
		if id, err := spiffeid.FromString(text); err == nil {
			v.ID = id.String()
		}
		all = append(all, v)
	}
	return all
}

// What is made of a certificate before it is signed.
type change func(*x509.Certificate)

func named(uris ...string) change {
	return func(c *x509.Certificate) {
		c.URIs = nil
		for _, uri := range uris {
			c.URIs = append(c.URIs, must(url.Parse(uri)))
		}
	}
}

func usage(bits x509.KeyUsage) change { return func(c *x509.Certificate) { c.KeyUsage = bits } }
func isCA(c *x509.Certificate)        { c.IsCA, c.BasicConstraintsValid = true, true }
func isNoCA(c *x509.Certificate)      { c.IsCA, c.BasicConstraintsValid = false, true }

func signed(key crypto.Signer, changes ...change) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, URIs: []*url.URL{must(url.Parse("spiffe://td.example/x"))},
	}
	for _, change := range changes {
		change(template)
	}
	return must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
}

func certificates() []vector {
	p256, other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	big := must(rsa.GenerateKey(rand.Reader, 2048))
	pkcs8 := func(key any) []byte { return must(x509.MarshalPKCS8PrivateKey(key)) }
	leaf := signed(p256)
	signer := signed(other, isCA, usage(x509.KeyUsageCertSign), named("spiffe://td.example"))
	join := func(parts ...[]byte) (all []byte) {
		for _, part := range parts {
			all = append(all, part...)
		}
		return all
	}
	key := pkcs8(p256)
	cases := []vector{
		{Name: "a leaf", Certificates: leaf, Key: key},
		{Name: "a leaf and its CA", Certificates: join(leaf, signer), Key: key},
		{Name: "a leaf and two CAs", Certificates: join(leaf, signer, signer), Key: key},
		{Name: "RSA", Certificates: signed(big), Key: pkcs8(big)},
		{Name: "with a DNS name", Certificates: signed(p256, func(c *x509.Certificate) { c.DNSNames = []string{"td.example"} }), Key: key},
		{Name: "with a DNS name that looks like a URI", Certificates: signed(p256, func(c *x509.Certificate) { c.DNSNames = []string{"x, URI:spiffe://td.example/y"} }), Key: key},
		{Name: "with more bits of usage", Certificates: signed(p256, usage(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement)), Key: key},
		{Name: "with a usage of two bytes", Certificates: signed(p256, usage(x509.KeyUsageDigitalSignature|x509.KeyUsageDecipherOnly)), Key: key},
		{Name: "with basic constraints", Certificates: signed(p256, isNoCA), Key: key},
		{Name: "expired", Certificates: signed(p256, func(c *x509.Certificate) { c.NotAfter = c.NotBefore }), Key: key},
		{Name: "a trust domain", Certificates: signed(p256, named("spiffe://td.example")), Key: key},
		{Name: "no URI", Certificates: signed(p256, named()), Key: key},
		{Name: "two URIs", Certificates: signed(p256, named("spiffe://td.example/x", "https://td.example")), Key: key},
		{Name: "another scheme", Certificates: signed(p256, named("https://td.example/x")), Key: key},
		{Name: "upper case", Certificates: signed(p256, named("spiffe://TD.example/x")), Key: key},
		{Name: "dots", Certificates: signed(p256, named("spiffe://td.example/x/../y")), Key: key},
		{Name: "with a comma", Certificates: signed(p256, named("spiffe://td.example/x,URI:spiffe://td.example/y")), Key: key},
		{Name: "a CA in front", Certificates: signed(p256, isCA), Key: key},
		{Name: "may sign certificates", Certificates: signed(p256, usage(x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign)), Key: key},
		{Name: "may sign revocation lists", Certificates: signed(p256, usage(x509.KeyUsageDigitalSignature|x509.KeyUsageCRLSign)), Key: key},
		{Name: "cannot sign", Certificates: signed(p256, usage(x509.KeyUsageKeyEncipherment)), Key: key},
		{Name: "no usage", Certificates: signed(p256, usage(0)), Key: key},
		{Name: "a leaf behind a leaf", Certificates: join(leaf, leaf), Key: key},
		{Name: "a CA that may not sign", Certificates: join(leaf, signed(other, isCA, usage(x509.KeyUsageDigitalSignature))), Key: key},
		{Name: "a key of another", Certificates: leaf, Key: pkcs8(other)},
		{Name: "a key of another kind", Certificates: leaf, Key: pkcs8(big)},
		{Name: "PKCS#1", Certificates: signed(big), Key: x509.MarshalPKCS1PrivateKey(big)},
		{Name: "SEC 1", Certificates: leaf, Key: must(x509.MarshalECPrivateKey(p256))},
		{Name: "no key", Certificates: leaf},
		{Name: "nothing", Key: key},
		{Name: "cut off", Certificates: leaf[:len(leaf)-1], Key: key},
		{Name: "more behind it", Certificates: join(leaf, []byte{0}), Key: key},
		{Name: "an empty sequence behind it", Certificates: join(leaf, []byte{0x30, 0}), Key: key},
		{Name: "no certificate", Certificates: []byte("no certificate"), Key: key},
	}
	for at := range cases {
		if svid, err := x509svid.ParseRaw(cases[at].Certificates, cases[at].Key); err == nil {
			cases[at].ID = svid.ID.String()
		}
	}
	return cases
}

func bundle() (*jwtbundle.Bundle, map[string]crypto.Signer) {
	keys := map[string]crypto.Signer{
		"ES256": must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "ES384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"ES512": must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), "RS256": must(rsa.GenerateKey(rand.Reader, 2048)),
	}
	bundle := jwtbundle.New(spiffeid.RequireTrustDomainFromString("td.example"))
	for id, key := range keys {
		check(bundle.AddJWTAuthority(id, key.Public()))
	}
	return bundle, keys
}

type object map[string]any

var encode = base64.RawURLEncoding.EncodeToString

// A JWS over these two, whatever they are.
func jws(header, claims any, key crypto.Signer) string {
	text := encode(must(json.Marshal(header))) + "." + encode(must(json.Marshal(claims)))
	named, _ := header.(object)["alg"].(string)
	hash := map[string]crypto.Hash{"384": crypto.SHA384, "512": crypto.SHA512}[strings.TrimLeft(named, "ERPSH")]
	if hash == 0 {
		hash = crypto.SHA256
	}
	digest := hash.New()
	digest.Write([]byte(text))
	sum := digest.Sum(nil)
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, sum)
		check(err)
		size := (key.Curve.Params().BitSize + 7) / 8
		return text + "." + encode(append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...))
	case *rsa.PrivateKey:
		if strings.HasPrefix(named, "PS") {
			return text + "." + encode(must(rsa.SignPSS(rand.Reader, key, hash, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})))
		}
		return text + "." + encode(must(rsa.SignPKCS1v15(rand.Reader, key, hash, sum)))
	}
	panic("no such key")
}

func tokens(bundle *jwtbundle.Bundle, keys map[string]crypto.Signer) []vector {
	now := time.Now().Unix()
	with := func(base object, more object) object {
		all := object{}
		for _, from := range []object{base, more} {
			for name, value := range from {
				if value == nil {
					delete(all, name)
				} else {
					all[name] = value
				}
			}
		}
		return all
	}
	head := object{"alg": "ES256", "kid": "ES256", "typ": "JWT"}
	claims := object{"sub": "spiffe://td.example/x", "aud": []string{audience}, "exp": now + 3600}
	headed := func(more object) string { return jws(with(head, more), claims, keys["ES256"]) }
	claimed := func(more object) string { return jws(head, with(claims, more), keys["ES256"]) }
	by := func(algorithm, kid string) string {
		return jws(with(head, object{"alg": algorithm, "kid": kid}), claims, keys[kid])
	}
	good := headed(nil)
	parts := strings.Split(good, ".")
	signature := must(base64.RawURLEncoding.DecodeString(parts[2]))
	tampered := append([]byte{}, signature...)
	tampered[10] ^= 1
	cases := []vector{
		{Name: "ES256", Text: good}, {Name: "ES384", Text: by("ES384", "ES384")}, {Name: "ES512", Text: by("ES512", "ES512")}, {Name: "RS256", Text: by("RS256", "RS256")},
		{Name: "RS384", Text: by("RS384", "RS256")}, {Name: "RS512", Text: by("RS512", "RS256")}, {Name: "PS256", Text: by("PS256", "RS256")},
		{Name: "PS384", Text: by("PS384", "RS256")}, {Name: "PS512", Text: by("PS512", "RS256")},
		{Name: "no type", Text: headed(object{"typ": nil})}, {Name: "JOSE", Text: headed(object{"typ": "JOSE"})},
		{Name: "an audience that is text", Text: claimed(object{"aud": audience})}, {Name: "two audiences", Text: claimed(object{"aud": []string{"other", audience}})},
		{Name: "more claims", Text: claimed(object{"iss": "https://td.example", "iat": now, "nbf": now, "x": object{"y": 1}})},
		{Name: "a trust domain as subject", Text: claimed(object{"sub": "spiffe://td.example"})},
		{Name: "another type", Text: headed(object{"typ": "at+jwt"})}, {Name: "no algorithm", Text: headed(object{"alg": nil})}, {Name: "none", Text: headed(object{"alg": "none"})},
		{Name: "HS256", Text: headed(object{"alg": "HS256"})}, {Name: "EdDSA", Text: headed(object{"alg": "EdDSA"})}, {Name: "es256", Text: headed(object{"alg": "es256"})},
		{Name: "ES384 of a P-256 key", Text: headed(object{"alg": "ES384"})}, {Name: "RS256 of a P-256 key", Text: headed(object{"alg": "RS256"})},
		{Name: "ES256 of an RSA key", Text: jws(with(head, object{"kid": "RS256"}), claims, keys["ES256"])},
		{Name: "PS256 that is signed as RS256", Text: strings.Join(append(strings.Split(by("PS256", "RS256"), ".")[:2], strings.Split(by("RS256", "RS256"), ".")[2]), ".")},
		{Name: "no key id", Text: headed(object{"kid": nil})}, {Name: "an empty key id", Text: headed(object{"kid": ""})}, {Name: "an unknown key id", Text: headed(object{"kid": "other"})},
		{Name: "a critical header", Text: headed(object{"crit": []string{"x"}, "x": 1})},
		{Name: "no subject", Text: claimed(object{"sub": nil})}, {Name: "an empty subject", Text: claimed(object{"sub": ""})}, {Name: "a name as subject", Text: claimed(object{"sub": "alice"})},
		{Name: "a subject elsewhere", Text: claimed(object{"sub": "spiffe://other.example/x"})}, {Name: "a subject that is a number", Text: claimed(object{"sub": 1})},
		{Name: "another audience", Text: claimed(object{"aud": []string{"https://other.example"}})}, {Name: "no audience", Text: claimed(object{"aud": nil})},
		{Name: "an empty list of audiences", Text: claimed(object{"aud": []string{}})}, {Name: "an audience below ours", Text: claimed(object{"aud": audience + "/x"})},
		{Name: "expired", Text: claimed(object{"exp": now - 3600})}, {Name: "no expiry", Text: claimed(object{"exp": nil})}, {Name: "an expiry that is text", Text: claimed(object{"exp": "never"})},
		{Name: "not yet", Text: claimed(object{"nbf": now + 3600})}, {Name: "issued tomorrow", Text: claimed(object{"iat": now + 86400})},
		{Name: "another signature", Text: parts[0] + "." + parts[1] + "." + encode(tampered)}, {Name: "a short signature", Text: parts[0] + "." + parts[1] + "." + encode(signature[:63])},
		{Name: "a long signature", Text: good + "AA"}, {Name: "no signature", Text: parts[0] + "." + parts[1] + "."}, {Name: "two parts", Text: parts[0] + "." + parts[1]},
		{Name: "four parts", Text: good + ".x"}, {Name: "other claims", Text: parts[0] + "." + strings.Split(claimed(object{"sub": "spiffe://td.example/y"}), ".")[1] + "." + parts[2]},
		{Name: "claims that are a list", Text: jws(head, []int{1}, keys["ES256"])}, {Name: "nothing", Text: ""}, {Name: "dots", Text: ".."}, {Name: "a line behind it", Text: good + "\n"},
		{Name: "padding", Text: parts[0] + "." + parts[1] + "." + parts[2] + "=="},
	}
	for at := range cases {
		if svid, err := jwtsvid.ParseAndValidate(cases[at].Text, bundle, []string{audience}); err == nil {
			cases[at].ID = svid.ID.String()
		}
	}
	return cases
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
