package binding

import "unicode/utf8"

const (
	tagBoolean  = 0x01
	tagInteger  = 0x02
	tagOctets   = 0x04
	tagUTF8     = 0x0c
	tagSequence = 0x30
	tagged0     = 0xa0
	tagged1     = 0xa1
)

// der takes elements off the front and accepts nothing but DER: one-byte tags, lengths in their shortest form, no bytes left
// over. It keeps the first error in err, which nested readers share; every value after that is zero.
//
// encoding/asn1 is not strict enough: it ignores unknown fields at the end of a sequence.
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

// more is also false after an error, so that a loop ends.
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
		// Two octets can express 65535, which is above MaxDER.
		head += length - 0x80
		if head > 4 || len(d.rest) < head {
			d.fail("a length is too long or cut short")
			return nil
		}
		length = 0
		for _, octet := range d.rest[2:head] {
			length = length<<8 | int(octet)
		}
		// A length is in its shortest form: no leading zero, and one byte if it fits in seven bits. This excludes indefinite lengths.
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
	// A leading zero is allowed only where the number would be negative without it.
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
