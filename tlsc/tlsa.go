package tlsc

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A TLSA is a TLSA record (RFC 6698 section 2.1). A pin has the same form.
type TLSA struct {
	Usage    uint8  // 2: the authority, DANE-TA; 3: the server's certificate, DANE-EE (RFC 7218 section 2.1)
	Selector uint8  // 0: of the whole certificate; 1: of its SubjectPublicKeyInfo
	Matching uint8  // 0: Data is that itself; 1: Data is its SHA-256; 2: its SHA-512
	Data     []byte // of any length, where it comes from DNS
}

// The numbers of RFC 7218 that can be used with mail (RFC 7672 section 3.1.3).
const (
	usageTA        = 2
	usageEE        = 3
	selectorCert   = 0
	selectorSPKI   = 1
	matchingFull   = 0
	matchingSHA256 = 1
	matchingSHA512 = 2
)

// String is the record as a zone file has it, without the owner, in lower case: "3 1 1 ab12".
func (r TLSA) String() string {
	return fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.Matching, r.Data)
}

// ParseTLSA reads what String makes, in upper or lower case. There is one blank between
// the fields and none anywhere else, each number is 0 to 255 without a zero in front, and
// there is data.
func ParseTLSA(text string) (TLSA, error) {
	fields := strings.Split(text, " ")
	if len(fields) != 4 {
		return TLSA{}, fmt.Errorf("%q is no TLSA record: it wants three numbers and hexadecimal data", cut(text, recordQuoted))
	}
	var numbers [3]uint8
	for i := range numbers {
		n, err := strconv.ParseUint(fields[i], 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != fields[i] {
			return TLSA{}, fmt.Errorf("%q is no TLSA record: %q is not a number from 0 to 255", cut(text, recordQuoted), cut(fields[i], recordQuoted))
		}
		numbers[i] = uint8(n)
	}
	data, err := hex.DecodeString(fields[3])
	if err != nil || len(data) == 0 {
		return TLSA{}, fmt.Errorf("%q is no TLSA record: its data is not pairs of hexadecimal digits", cut(text, recordQuoted))
	}
	return TLSA{numbers[0], numbers[1], numbers[2], data}, nil
}

// recordQuoted bounds what is quoted of a record that cannot be read.
const recordQuoted = 80

// Usable reports whether the record can decide about a mail server (RFC 7672 section
// 3.1.3): usage 2 or 3, selector 0 or 1, and data that is a digest or, with matching 0,
// a certificate or a key that can be parsed.
func (r TLSA) Usable() bool {
	if r.Usage != usageTA && r.Usage != usageEE || r.Selector > selectorSPKI {
		return false
	}
	switch r.Matching {
	case matchingSHA256:
		return len(r.Data) == sha256.Size
	case matchingSHA512:
		return len(r.Data) == sha512.Size
	case matchingFull:
		var err error
		if r.Selector == selectorCert {
			_, err = x509.ParseCertificate(r.Data)
		} else {
			_, err = x509.ParsePKIXPublicKey(r.Data)
		}
		return err == nil
	}
	return false
}

// matches reports whether the record is about this certificate. The usage does not matter.
func (r TLSA) matches(c *x509.Certificate) bool {
	selected := c.Raw
	if r.Selector == selectorSPKI {
		selected = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case matchingSHA256:
		sum := sha256.Sum256(selected)
		selected = sum[:]
	case matchingSHA512:
		sum := sha512.Sum512(selected)
		selected = sum[:]
	}
	return bytes.Equal(selected, r.Data)
}

// decisive leaves out the records that are not usable, and the SHA2-256 ones where there
// are usable SHA2-512 ones of the same usage and selector (RFC 7671 section 9).
func decisive(records []TLSA) []TLSA {
	var usable []TLSA
	stronger := make(map[[2]uint8]bool)
	for _, r := range records {
		if !r.Usable() {
			continue
		}
		usable = append(usable, r)
		if r.Matching == matchingSHA512 {
			stronger[[2]uint8{r.Usage, r.Selector}] = true
		}
	}
	var kept []TLSA
	for _, r := range usable {
		if r.Matching != matchingSHA256 || !stronger[[2]uint8{r.Usage, r.Selector}] {
			kept = append(kept, r)
		}
	}
	return kept
}

const (
	// maxRecords bounds the records of one server, because each costs every handshake
	// some digests. Zones have two or three.
	maxRecords = 100
	// maxRecordsText bounds their text form, which is a variable of the environment, in
	// bytes. It holds a dozen whole certificates.
	maxRecordsText = 32768
)

// Errors of NewRecords and ParseRecords.
var (
	errManyRecords = fmt.Errorf("more than %d TLSA records", maxRecords)
	errLongRecords = fmt.Errorf("TLSA records of more than %d bytes as text", maxRecordsText)
	errNoRecords   = errors.New("no TLSA record")
)

// Records are TLSA records or pins. They do not change, and can be compared: the order
// counts. The zero Records has none.
type Records struct {
	// packed has, of each record, the three numbers, the length of the data in four
	// bytes, and the data. A slice could not be compared.
	packed string
}

// NewRecords packs records. It returns an error if there are more than 100, or if their
// text has more than 32,768 bytes.
func NewRecords(records []TLSA) (Records, error) {
	if len(records) > maxRecords {
		return Records{}, errManyRecords
	}
	var packed []byte
	size := 0
	for _, r := range records {
		if size += len(r.String()) + len(","); size > maxRecordsText+len(",") {
			return Records{}, errLongRecords
		}
		packed = append(packed, r.Usage, r.Selector, r.Matching)
		packed = binary.BigEndian.AppendUint32(packed, uint32(len(r.Data)))
		packed = append(packed, r.Data...)
	}
	return Records{string(packed)}, nil
}

// ParseRecords reads what String makes: one record or more in the form that ParseTLSA
// reads, with commas between. It returns an error for any other text, for more than 100
// records, and for more than 32,768 bytes.
func ParseRecords(text string) (Records, error) {
	if len(text) > maxRecordsText {
		return Records{}, errLongRecords
	}
	if text == "" {
		return Records{}, errNoRecords
	}
	var records []TLSA
	for field := range strings.SplitSeq(text, ",") {
		r, err := ParseTLSA(field)
		if err != nil {
			return Records{}, err
		}
		records = append(records, r)
	}
	return NewRecords(records)
}

// Pins are records for certificates of servers: each digest is the SHA-256 of a
// certificate, or of its SubjectPublicKeyInfo. The error is that of NewRecords.
func Pins(digests ...[sha256.Size]byte) (Records, error) {
	var records []TLSA
	for _, digest := range digests {
		for selector := range uint8(selectorSPKI + 1) {
			records = append(records, TLSA{usageEE, selector, matchingSHA256, digest[:]})
		}
	}
	return NewRecords(records)
}

// List returns the records, in their order.
func (r Records) List() []TLSA {
	const header = 3 + 4
	var list []TLSA
	for rest := r.packed; rest != ""; {
		end := header + int(binary.BigEndian.Uint32([]byte(rest[3:header])))
		list = append(list, TLSA{rest[0], rest[1], rest[2], []byte(rest[header:end])})
		rest = rest[end:]
	}
	return list
}

// Usable returns the records that can decide, in their order.
func (r Records) Usable() Records {
	var usable []TLSA
	for _, record := range r.List() {
		if record.Usable() {
			usable = append(usable, record)
		}
	}
	kept, _ := NewRecords(usable) // no more than there were
	return kept
}

// String is the form of $MXF_TLSA: "3 1 1 ab12,2 0 1 cd34".
func (r Records) String() string {
	var text strings.Builder
	for i, record := range r.List() {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString(record.String())
	}
	return text.String()
}
