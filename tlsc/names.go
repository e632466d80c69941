package tlsc

import (
	"bytes"
	"crypto/x509"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/text/unicode/norm"
)

// String types of names that encoding/asn1 has no constants for (X.680).
const (
	numericString   = asn1.Tag(18)
	visibleString   = asn1.Tag(26)
	universalString = asn1.Tag(28)
	bmpString       = asn1.Tag(30)
)

// preparedName returns a form of a DER name that is equal for equal names (RFC 5280
// section 7.1): strings of one type, prepared as in RFC 4518. The form is not DER. A name
// that cannot be read equals only itself.
//
// If two names are told apart by mistake, a chain is lost. If two names are taken for
// one, nothing is lost, because the issuer's key makes a chain good and not its name.
func preparedName(der []byte) []byte {
	var name cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&name, asn1.SEQUENCE) || !input.Empty() {
		return der
	}
	var form cryptobyte.Builder
	for !name.Empty() {
		var set cryptobyte.String
		if !name.ReadASN1(&set, asn1.SET) {
			return der
		}
		var parts [][]byte
		for !set.Empty() {
			part, ok := preparedPart(&set)
			if !ok {
				return der
			}
			parts = append(parts, part)
		}
		slices.SortFunc(parts, bytes.Compare)
		form.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(parts, nil)) })
	}
	if all, err := form.Bytes(); err == nil {
		return append([]byte{0}, all...) // DER has no such tag
	}
	return der
}

// preparedPart reads one attribute and its value.
func preparedPart(set *cryptobyte.String) (part []byte, ok bool) {
	var attribute, kind, value cryptobyte.String
	var tag asn1.Tag
	if !set.ReadASN1(&attribute, asn1.SEQUENCE) ||
		!attribute.ReadASN1Element(&kind, asn1.OBJECT_IDENTIFIER) ||
		!attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() {
		return nil, false
	}
	var form cryptobyte.Builder
	form.AddBytes(kind)
	if text, isText := decodeText(tag, value); isText {
		tag, value = asn1.UTF8String, cryptobyte.String(prepare(text))
	}
	form.AddUint8(uint8(tag))
	form.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(value) })
	part, err := form.Bytes()
	return part, err == nil
}

// decodeText reads a string of any type. It takes T61String for Latin-1, as others do.
func decodeText(tag asn1.Tag, value []byte) (text string, ok bool) {
	switch tag {
	case asn1.UTF8String, asn1.PrintableString, asn1.IA5String, numericString, visibleString:
		return string(value), utf8.Valid(value)
	case asn1.T61String:
		runes := make([]rune, len(value))
		for i, b := range value {
			runes[i] = rune(b)
		}
		return string(runes), true
	case bmpString:
		units := make([]uint16, len(value)/2)
		for i := range units {
			units[i] = uint16(value[2*i])<<8 | uint16(value[2*i+1])
		}
		return string(utf16.Decode(units)), len(value)%2 == 0
	case universalString:
		runes := make([]rune, len(value)/4)
		for i := range runes {
			v := value[4*i:]
			runes[i] = rune(uint32(v[0])<<24 | uint32(v[1])<<16 | uint32(v[2])<<8 | uint32(v[3]))
		}
		return string(runes), len(value)%4 == 0
	}
	return "", false
}

// prepare is the string preparation of RFC 4518 for caseIgnoreMatch: map, fold,
// normalize, and remove the blanks that mean nothing.
func prepare(text string) string {
	text = strings.Map(mapRune, text)
	if strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0 {
		// Normalizing may give characters that have to be folded.
		for range 2 {
			text = norm.NFKC.String(strings.Map(mapRune, strings.NewReplacer("ß", "ss", "ẞ", "ss").Replace(text)))
		}
	}
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' }), " ")
}

// mapRune is section 2.2 of RFC 4518.
func mapRune(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z':
		return r
	case 'A' <= r && r <= 'Z':
		return r + 'a' - 'A'
	case r >= '\t' && r <= '\r', r == 0x85, unicode.In(r, unicode.Z):
		return ' '
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Variation_Selector), r == 0x34f, r == 0x1806, r == 0xfffc:
		return -1
	}
	// The smallest of all that differ in nothing but case.
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	return unicode.ToLower(least)
}

func sameName(a, b []byte) bool {
	return bytes.Equal(a, b) || bytes.Equal(preparedName(a), preparedName(b))
}

// Renamed certificates are copies with prepared names in place of their own, for x509,
// which compares names byte by byte. Everything else that x509 checks is unchanged:
// signatures are made over RawTBSCertificate.
type renamed struct {
	original map[*x509.Certificate]*x509.Certificate
	names    map[string][]byte // the prepared form, by name
}

func newRenamed() *renamed {
	return &renamed{make(map[*x509.Certificate]*x509.Certificate), make(map[string][]byte)}
}

func (r *renamed) name(der []byte) []byte {
	name, known := r.names[string(der)]
	if !known {
		name = preparedName(der)
		r.names[string(der)] = name
	}
	return name
}

func (r *renamed) add(c *x509.Certificate) *x509.Certificate {
	twin := *c
	twin.RawSubject, twin.RawIssuer = r.name(c.RawSubject), r.name(c.RawIssuer)
	r.original[&twin] = c
	return &twin
}

// back replaces the copies in chains by their originals.
func (r *renamed) back(chains [][]*x509.Certificate) [][]*x509.Certificate {
	for _, chain := range chains {
		for i, c := range chain {
			chain[i] = r.original[c]
		}
	}
	return chains
}
