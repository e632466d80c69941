package tlsc

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/asn1"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// Description is what a handshake agreed upon, as it is told to programs.
type Description struct {
	Protocol    string // "TLSv1.3"
	Cipher      string // IANA's name of the cipher suite
	SNI         string // the name that was sent; "" for none
	CertHash    string // "SHA256:" and 64 lower-case hexadecimal digits, of the server's certificate
	CertSubject string // of the server's certificate, RFC 4514
	Verified    string // "yes", or "no:" and the reason; never empty
	Resumed     bool   // the session had been begun in another connection
}

// subjectLimit bounds SSL_PEER_CERT_SUBJECT: the server chooses its length, and
// the whole environment of a program has to fit into a UCSPI-TLS block of 64 KiB.
const subjectLimit = 4096

// Environ returns the assignments that a TLS client gives to its program. A name
// without "=" is one that has to be removed from the environment.
func (d Description) Environ() []string {
	sni := "SSL_TLS_SNI_SERVERNAME"
	if d.SNI != "" {
		sni += "=" + d.SNI
	}
	resumed := "no"
	if d.Resumed {
		resumed = "yes"
	}
	return []string{
		"SSL_PROTOCOL=" + d.Protocol,
		"SSL_CIPHER=" + d.Cipher,
		sni,
		"SSL_PEER_CERT_HASH=" + d.CertHash,
		"SSL_PEER_CERT_SUBJECT=" + d.CertSubject,
		"SSL_PEER_VERIFIED=" + d.Verified,
		"SSL_SESSION_RESUMED=" + resumed,
	}
}

func describe(state tls.ConnectionState, sni, verified string) Description {
	d := Description{
		Protocol: versionName(state.Version),
		Cipher:   tls.CipherSuiteName(state.CipherSuite),
		SNI:      sni,
		Verified: verified,
		Resumed:  state.DidResume,
	}
	if len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		sum := sha256.Sum256(leaf.Raw)
		d.CertHash = "SHA256:" + hex.EncodeToString(sum[:])
		d.CertSubject = cut(distinguishedName(leaf.RawSubject), subjectLimit)
	}
	return d
}

// versionName is "TLSv1.3" for 0x0304, and so down to "TLSv1", which is what s6-tlsc
// and every library under it call TLS 1.0.
func versionName(version uint16) string {
	if version == tls.VersionTLS10 {
		return "TLSv1"
	}
	return strings.Replace(tls.VersionName(version), "TLS ", "TLSv", 1)
}

// attributeName is that of RFC 4514 section 3, or "".
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

// An attribute and its value, the latter undecoded: RFC 4514 wants the encoding
// itself where the attribute has no name of its own.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// A relativeNameSET is one part of a name; encoding/asn1 takes a slice type for a
// set by the end of its name.
type relativeNameSET []attribute

// distinguishedName writes a DER name as RFC 4514 has it: the last part first.
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

// escapeValue is RFC 4514 section 2.4. Control characters, which it leaves alone,
// are escaped too: the text goes into environments and reports.
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
