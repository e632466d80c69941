package tlsc

import (
	"encoding/asn1"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// attributeName is the name that RFC 4514 section 3 gives an attribute, or "".
func attributeName(oid string) string {
	switch oid {
	case "2.5.4.3":
		return "CN"
	case "2.5.4.6":
		return "C"
	case "2.5.4.7":
		return "L"
	case "2.5.4.8":
		return "ST"
	case "2.5.4.9":
		return "STREET"
	case "2.5.4.10":
		return "O"
	case "2.5.4.11":
		return "OU"
	case "0.9.2342.19200300.100.1.1":
		return "UID"
	case "0.9.2342.19200300.100.1.25":
		return "DC"
	}
	return ""
}

// An attribute and its value. The value is not decoded, because RFC 4514 wants the
// encoding itself where the attribute has no name.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// A relativeNameSET is one part of a name. encoding/asn1 knows by the end of the type's
// name that the slice is a set.
type relativeNameSET []attribute

// distinguishedName writes a DER name as RFC 4514 does: the last part first.
func distinguishedName(der []byte) string {
	var names []relativeNameSET
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 {
		return "#" + hex.EncodeToString(der)
	}
	parts := make([]string, 0, len(names))
	for i := len(names) - 1; i >= 0; i-- {
		parts = append(parts, names[i].String())
	}
	return strings.Join(parts, ",")
}

func (r relativeNameSET) String() string {
	parts := make([]string, 0, len(r))
	for _, a := range r {
		parts = append(parts, a.String())
	}
	return strings.Join(parts, "+")
}

func (a attribute) String() string {
	name := attributeName(a.Type.String())
	if name == "" {
		return a.Type.String() + "=#" + hex.EncodeToString(a.Value.FullBytes)
	}
	var value any
	if _, err := asn1.Unmarshal(a.Value.FullBytes, &value); err == nil {
		if text, ok := value.(string); ok {
			return name + "=" + escapeValue(text)
		}
	}
	return name + "=#" + hex.EncodeToString(a.Value.FullBytes)
}

// escapeValue escapes as in RFC 4514 section 2.4. It escapes control characters too,
// because the text goes into environments and reports.
func escapeValue(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r < ' ' || r == 0x7f || r == utf8.RuneError && size == 1:
			b.WriteByte('\\')
			b.WriteByte(digits[s[i]>>4])
			b.WriteByte(digits[s[i]&15])
		case strings.ContainsRune(`"+,;<>\`, r),
			i == 0 && (r == ' ' || r == '#'),
			i == len(s)-1 && r == ' ':
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}
