package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"nightmare.mail/mxf/integration/must"
)

// now is the clock of these tests.
var now = time.Unix(1785000000, 0)

const from = "From: Joe <joe@shop.example>\n"

// edKey is a key of Ed25519 that all runs have in common.
func edKey(t testing.TB) *PrivateKey {
	return must.Get(newKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))))(t)
}

func rsaKey(t testing.TB, bits int) *PrivateKey {
	return must.Get(newKey(must.Get(rsa.GenerateKey(nil, bits))(t)))(t)
}

func keyOf(private *PrivateKey) Key { return Key{"shop.example", "s1", private} }

// signed returns a message with its signatures on top.
func signed(t testing.TB, message string, keys ...Key) string {
	t.Helper()
	h := must.Get(Read(strings.NewReader(message)))(t)
	return string(must.Get(h.Sign(keys, now))(t)) + message
}

// received is what an SMTP server receives of a message, dots not stuffed.
func received(message string) string {
	unix := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(message)
	return strings.ReplaceAll(unix, "\n", "\r\n")
}

// verify is a verifier of our own, which knows regular expressions and no buffers. It goes by
// RFC 6376 alone and returns what is wrong with the signature on top of a message with line ends
// of CR LF.
func verify(message string, key *PrivateKey) error {
	header, body, _ := strings.Cut("\r\n"+message, "\r\n\r\n")
	if !strings.HasSuffix(header, "\r\n") {
		header += "\r\n"
	}
	fields := regexp.MustCompile(`\r\n([^\r\n])`).ReplaceAllString(header, "\r\n\x00$1")
	fields = regexp.MustCompile("\r\n\x00([ \t])").ReplaceAllString(fields, "\r\n$1")
	all := strings.Split(fields, "\r\n\x00")[1:]
	tags := make(map[string]string)
	var order []string
	for tag := range strings.SplitSeq(strings.TrimPrefix(all[0], "DKIM-Signature:"), ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(tag), "=")
		tags[name] = regexp.MustCompile(`\s`).ReplaceAllString(value, "")
		order = append(order, name)
	}
	if want := []string{"v", "a", "c", "d", "s", "t", "h", "bh", "b"}; !slices.Equal(order, want) {
		return fmt.Errorf("tags %q", order)
	}

	body = regexp.MustCompile(`[ \t]+`).ReplaceAllString(body, " ")
	body = regexp.MustCompile(` (\r\n|$)`).ReplaceAllString(body, "$1")
	if body = regexp.MustCompile(`(\r\n)*$`).ReplaceAllString(body, ""); body != "" {
		body += "\r\n"
	}
	if sum := sha256.Sum256([]byte(body)); base64.StdEncoding.EncodeToString(sum[:]) != tags["bh"] {
		return errors.New("bh=")
	}

	relaxed := func(field string) string {
		name, value, _ := strings.Cut(field, ":")
		value = regexp.MustCompile(`[ \t]+`).ReplaceAllString(strings.ReplaceAll(value, "\r\n", ""), " ")
		return strings.ToLower(strings.Trim(name, " \t")) + ":" + strings.Trim(value, " ")
	}
	left := slices.Clone(all)
	text := ""
	for name := range strings.SplitSeq(tags["h"], ":") {
		for i := len(left) - 1; i >= 0; i-- {
			if one, _, found := strings.Cut(left[i], ":"); found && strings.EqualFold(strings.Trim(one, " \t"), name) {
				text += relaxed(left[i]) + "\r\n"
				left = slices.Delete(left, i, i+1)
				break
			}
		}
	}
	text += regexp.MustCompile(`b=[^;]*$`).ReplaceAllString(relaxed(all[0]), "b=")
	signature, err := base64.StdEncoding.DecodeString(tags["b"])
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(text))
	if key.Algorithm() != tags["a"] {
		return fmt.Errorf("a=%s", tags["a"])
	}
	if tags["a"] == "ed25519-sha256" {
		if !ed25519.Verify(key.public, sum[:], signature) {
			return errors.New("b=")
		}
		return nil
	}
	public, err := x509.ParsePKIXPublicKey(key.public)
	if err != nil {
		return err
	}
	return rsa.VerifyPKCS1v15(public.(*rsa.PublicKey), 5, sum[:], signature)
}

// messages are what every verifier is given.
func messages() map[string]string {
	long := strings.Repeat("long ", 199) + "\n"
	return map[string]string{
		"usual":                   from + "To: you@example.org\nSubject: x\nDate: Sun, 22 Nov 2026 08:17:00 +0000\nMessage-ID: <1@shop.example>\n\nhello\n",
		"no body":                 from + "\n",
		"no empty line":           from,
		"no newline in header":    strings.TrimSuffix(from, "\n"),
		"no final newline":        from + "\nhello",
		"empty lines":             from + "\n\n\n\n",
		"empty lines at the end":  from + "\nhello\n\n \n\t\n\n",
		"empty lines before text": from + "\n\n\n \nhello\n",
		"blanks at line ends":     from + "Subject: x  \t\n\na \t\n\tb\t \n  c\n",
		"blanks at the end":       from + "\nhello\n  ",
		"only blanks":             from + "\n  \t",
		"CR LF":                   strings.ReplaceAll(from+"Subject: x\n y\n\na\n\nb\n\n", "\n", "\r\n"),
		"CR in header":            from + "Subject: a\rTo: you@example.org\r\rbody\n",
		"CR in body":              from + "\na\rb\r\rc\r\n\rd\r",
		"CR at the end":           from + "\n\r\r\r",
		"8-bit":                   "From: J\xf6rg <joe@shop.example>\nSubject: \xe4 \xc3\xa4\n\n\xff\xfe\x80\n",
		"NUL":                     from + "Subject: a\x00b\n\n\x00\n\x00 \x00\n",
		"folded":                  "From:\n Joe\n\t<joe@shop.example>\nSubject:\n  a \n\t b\nTo: x@example.org,\n \n y@example.org\n\nhello\n",
		"long lines":              from + "Subject: " + long + "To: " + long + "\n" + strings.Repeat("x", 100000) + "\n",
		"twice":                   from + "To: a@example.org\nTo: b@example.org\nSubject: 1\nSubject: 2\nsubject: 3\nDate: 1\nDate: 2\nReferences: 1\nReferences: 2\n\nhello\n",
		"every field":             from + everyField() + "\nhello\n",
		"empty values":            from + "To:\nCc: \nSubject:\t\n\nhello\n",
		"signed before":           "DKIM-Signature: v=1; a=rsa-sha256; d=other.example; s=x;\n b=AAAA\n" + from + "\nhello\n",
		"dots":                    from + "\n.\n..\n.a\n",
	}
}

func everyField() string {
	var b strings.Builder
	for _, s := range signedFields[1:] {
		fmt.Fprintf(&b, "%s: value of\n\t%s\n", s.name, s.name)
	}
	return b.String()
}

func TestSign(t *testing.T) {
	keys := []Key{keyOf(rsaKey(t, 1024)), keyOf(edKey(t))}
	for name, message := range messages() {
		t.Run(name, func(t *testing.T) {
			text := received(signed(t, message, keys...))
			must.Check(t, verify(text, keys[0].Private))
			_, second, _ := strings.Cut(text, "\r\nDKIM-Signature:")
			must.Check(t, verify("DKIM-Signature:"+second, keys[1].Private))
		})
	}
}

// What is sent by QMTP is verified as it is stored, where it has no CR.
func TestSign_asStored(t *testing.T) {
	key := edKey(t)
	for name, message := range messages() {
		if !strings.Contains(message, "\r") {
			if err := verify(strings.ReplaceAll(signed(t, message, keyOf(key)), "\n", "\r\n"), key); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// each calls use for every string of up to n of these parts.
func each(parts []string, n int, use func(string)) {
	var grow func(string, int)
	grow = func(s string, n int) {
		use(s)
		if n > 0 {
			for _, p := range parts {
				grow(s+p, n-1)
			}
		}
	}
	grow("", n)
}

// bodyParts are what a body is made of that is hard to canonicalize.
var bodyParts = []string{"\r", "\n", ".", " ", "\t", "a"}

// Every short body is signed as it arrives, and every short end of a header.
func TestSign_everyBody(t *testing.T) {
	key, n := edKey(t), 0
	each(bodyParts, 5, func(body string) {
		n++
		if err := verify(received(signed(t, from+"\n"+body, keyOf(key))), key); err != nil {
			t.Errorf("body %q: %v", body, err)
		}
	})
	if n != 1+6+36+216+1296+7776 {
		t.Errorf("%d bodies", n)
	}
}

func TestSign_everyHeader(t *testing.T) {
	key := edKey(t)
	each([]string{"\r", "\n", ":", " ", "a", "To:x\n"}, 5, func(more string) {
		if err := verify(received(signed(t, from+"X: x\n"+more, keyOf(key))), key); err != nil {
			t.Errorf("header %q: %v", more, err)
		}
	})
}

// The body may be cut anywhere between two reads.
func TestHashBody_cuts(t *testing.T) {
	each(bodyParts, 4, func(body string) {
		whole := must.Get(hashBody(strings.NewReader(body), 0))(t)
		h := newHash()
		b := canonicalBody{to: h}
		for i := range len(body) {
			b.add([]byte(body[i : i+1]))
		}
		b.end()
		if !bytes.Equal(whole, h.Sum(nil)) {
			t.Errorf("%q: the hash depends on the cuts", body)
		}
	})
}

// RFC 6376 section 3.4.5, and the hashes of nothing in sections 3.4.3 and 3.4.4.
func TestCanonical_RFC6376(t *testing.T) {
	var out bytes.Buffer
	b := canonicalBody{to: &out}
	b.add([]byte(" C \r\nD \t E\r\n\r\n\r\n"))
	b.end()
	if out.String() != " C\r\nD E\r\n" {
		t.Errorf("body %q", &out)
	}
	out.Reset()
	c := canonicalField{to: &out}
	c.name("A")
	c.add([]byte(" X"))
	c.end()
	c.name("B")
	c.add([]byte(" Y\t\r\n\tZ  "))
	c.end()
	if out.String() != "a:X\r\nb:Y Z\r\n" {
		t.Errorf("header %q", &out)
	}
	empty := must.Get(hashBody(strings.NewReader("x\r\n"), 3))(t)
	if got := base64.StdEncoding.EncodeToString(empty); got != "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" {
		t.Errorf("hash of an empty body %s", got)
	}
}

// RFC 8463 appendix A: the key, the hash of the body, and the signature of Ed25519.
func TestSign_RFC8463(t *testing.T) {
	const text = "From: Joe SixPack <joe@football.example.com>\r\n" +
		"To: Suzie Q <suzie@shopping.example.net>\r\n" +
		"Subject: Is dinner ready?\r\n" +
		"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n" +
		"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\n" +
		"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
	const field = " v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n" +
		" d=football.example.com; i=@football.example.com;\r\n" +
		" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n" +
		" subject : date : message-id : from : subject : date;\r\n" +
		" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b="
	seed := must.Get(base64.StdEncoding.DecodeString("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))(t)
	key := must.Get(newKey(ed25519.NewKeyFromSeed(seed)))(t)
	if got := key.Record(); got != "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=" {
		t.Errorf("record %s", got)
	}
	h := must.Get(Read(strings.NewReader(text)))(t)
	if got := base64.StdEncoding.EncodeToString(must.Get(hashBody(h.text, h.body))(t)); got != "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=" {
		t.Errorf("hash of the body %s", got)
	}
	to := newHash()
	c := canonicalField{to: to}
	for _, name := range []string{"From", "To", "Subject", "Date", "Message-ID"} {
		for _, f := range h.fields {
			if signedFields[f.kind].name == name {
				c.name(name)
				must.OK(t, c.addFrom(h.text, f.start, f.end, make([]byte, 7)))
				c.end()
			}
		}
	}
	k := Key{Private: key}
	signature := must.Get(k.sign(to, []byte(signatureName+":"+field)))(t)
	if got := base64.StdEncoding.EncodeToString(signature); got != "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==" {
		t.Errorf("signature %s", got)
	}
}

// The form of the field: tags, line lengths, line ends.
func TestSign_field(t *testing.T) {
	keys := []Key{
		{"shop.example", "s2026", rsaKey(t, 2048)},
		{strings.Repeat("a.", 100) + "example", strings.Repeat("s", 63), edKey(t)},
	}
	for _, newline := range []string{"\n", "\r\n"} {
		message := strings.ReplaceAll(from+everyField()+"\nhello\n", "\n", newline)
		h := must.Get(Read(strings.NewReader(message)))(t)
		text := string(must.Get(h.Sign(keys, now))(t))
		if strings.Count(text, "\n") != strings.Count(text, newline) || !strings.HasSuffix(text, newline) {
			t.Errorf("line ends in %q", text)
		}
		if strings.Count(text, "\r") != strings.Count(text, "\r\n") {
			t.Errorf("CR in %q", text)
		}
		fields := 0
		for line := range strings.SplitSeq(strings.TrimSuffix(text, newline), newline) {
			switch {
			case strings.HasPrefix(line, "DKIM-Signature: v=1; a="):
				fields++
			case !strings.HasPrefix(line, "\t"):
				t.Errorf("line %q", line)
			}
			if len(line) > maxWidth && !strings.HasPrefix(line, "\td=a.a.") {
				t.Errorf("%d bytes in %q", len(line), line)
			}
		}
		if fields != 2 || !strings.Contains(strings.SplitN(text, newline, 3)[1], "s=s2026;") {
			t.Errorf("%d fields: %q", fields, text)
		}
		if !strings.Contains(text, " t=1785000000;") && !strings.Contains(text, "\tt=1785000000;") {
			t.Errorf("t= in %q", text)
		}
	}
}

func TestHeader_names(t *testing.T) {
	always := "From From To Cc Reply-To Subject"
	tests := map[string]string{
		from: always,
		from + "to: a\nTO: b\nSubject : c\nX: y\nReceived: z\nReturn-Path: <>\nComments: none\n": "From From To To To Cc Reply-To Subject Subject",
		from + "Date: 1\nMessage-ID: 2\nMIME-Version: 1.0\n":                                     always + " Date Date Message-ID Message-ID MIME-Version MIME-Version",
		from + "Sender: a\nSender: b\nReferences: 1\nReferences: 2\nList-Id: x\n":                always + " Sender Sender Sender References References List-Id",
		from + "no field\nTo\xff: x\n: x\nTo x: y\n":                                             always,
	}
	for message, want := range tests {
		h := must.Get(Read(strings.NewReader(message)))(t)
		if got := strings.Join(h.names(), " "); got != want {
			t.Errorf("%q\ngot  %s\nwant %s", message, got, want)
		}
	}
}

func TestRead_unsigned(t *testing.T) {
	fold := " " + strings.Repeat("x", 1022) + "\n"
	tests := []struct {
		name, message string
		want          error // nil: signed
	}{
		{"empty", "", errNoFrom},
		{"no header", "\n" + from, errNoFrom},
		{"From in the body", "To: x\n\n" + from, errNoFrom},
		{"From behind two CR", "To: x\r\r" + from, errNoFrom},
		{"From twice", from + from, errManyFrom},
		{"From twice, CR between", "From: joe@shop.example\rfrom : joe@shop.example", errManyFrom},
		{"first line goes on", " x\n" + from, Unsigned("the message begins with a blank")},
		{"mbox", "From joe Mon\n" + from, nil},
		{"long line", from + "X: " + strings.Repeat("x", maxLine-3) + "\n", nil},
		{"too long a line", from + "X: " + strings.Repeat("x", maxLine-2) + "\n", Unsigned("a line of the header has more than 65536 bytes")},
		{"long line in the body", from + "\n" + strings.Repeat("x", maxLine+1) + "\n", nil},
		{"large", from + "X: " + strings.Repeat("y", 1024-4-len(from)) + "\n" + strings.Repeat(fold, 1023), nil},
		{"too large", from + "X: " + strings.Repeat("y", 1024-3-len(from)) + "\n" + strings.Repeat(fold, 1023) + "\n", Unsigned("the header has more than 1048576 bytes")},
		{"200 names", from + strings.Repeat("To: x\n", 194), nil}, // From twice, three names once, and one To more
		{"201 names", from + strings.Repeat("To: x\n", 195), errManyNames},
		{"many fields", from + strings.Repeat("X: x\n", 10000), nil},
	}
	for _, tt := range tests {
		_, err := Read(strings.NewReader(tt.message))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// failingAt fails at and behind an offset.
type failingAt struct {
	io.ReaderAt
	offset int64
}

func (f failingAt) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > f.offset {
		if at >= f.offset {
			return 0, iotest.ErrTimeout
		}
		b = b[:f.offset-at]
		n, _ := f.ReaderAt.ReadAt(b, at)
		return n, iotest.ErrTimeout
	}
	return f.ReaderAt.ReadAt(b, at)
}

// A message that cannot be read is an error, and not one without a signature.
func TestSign_unreadable(t *testing.T) {
	message := from + "To: x\n\n" + strings.Repeat("x\n", 50000)
	if _, err := Read(failingAt{strings.NewReader(message), 20}); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("header: %v", err)
	}
	h := must.Get(Read(strings.NewReader(message)))(t)
	for _, offset := range []int64{10, 60000} {
		h.text = failingAt{strings.NewReader(message), offset}
		if _, err := h.Sign([]Key{keyOf(edKey(t))}, now); !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("behind %d: %v", offset, err)
		}
	}
	h.text = strings.NewReader(message[:10])
	if _, err := h.Sign([]Key{keyOf(edKey(t))}, now); !errors.Is(err, errShrunk) {
		t.Errorf("shorter: %v", err)
	}
	broken := &PrivateKey{algorithm: "rsa-sha256", sign: func([]byte) ([]byte, error) { return nil, io.ErrNoProgress }}
	h.text = strings.NewReader(message)
	if fields, err := h.Sign([]Key{keyOf(edKey(t)), keyOf(broken)}, now); !errors.Is(err, io.ErrNoProgress) || fields != nil {
		t.Errorf("a key that fails: %q, %v", fields, err)
	}
}

// repeated is a message of a header and one line again and again.
type repeated struct {
	header string
	line   byte
	size   int64
}

func (r repeated) ReadAt(b []byte, at int64) (int, error) {
	for i := range b {
		switch pos := at + int64(i); {
		case pos >= r.size:
			return i, io.EOF
		case pos < int64(len(r.header)):
			b[i] = r.header[pos]
		default:
			b[i] = r.line
		}
	}
	return len(b), nil
}

// Whatever the message, signing takes less than a MiB.
func TestSign_memory(t *testing.T) {
	fold := " x@shop.example," + strings.Repeat(" ", 1000) + "\n"
	tests := map[string]io.ReaderAt{
		"empty lines":   repeated{from + "\n", '\n', 32 << 20},
		"blanks":        repeated{from + "\n", ' ', 32 << 20},
		"CR":            repeated{from + "\n", '\r', 32 << 20},
		"no line":       repeated{from + "\n", 'x', 32 << 20},
		"a long From":   strings.NewReader("From:\n" + strings.Repeat(fold, 1000) + "\n"),
		"a long To":     strings.NewReader(from + "To:\n" + strings.Repeat(fold, 1000) + "\n"),
		"a long header": strings.NewReader(from + strings.Repeat("X:\n"+fold, 1000) + "\n"),
		"a long line":   strings.NewReader(from + "To: " + strings.Repeat("x", maxLine-4) + "\n"),
	}
	keys := []Key{keyOf(edKey(t))}
	for name, text := range tests {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		h := must.Get(Read(text))(t)
		must.Get(h.Sign(keys, now))(t)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 512<<10 {
			t.Errorf("%s: %d bytes", name, used)
		}
	}
}

// Empty lines that something follows are counted, and written then.
func TestSign_emptyLinesBetween(t *testing.T) {
	key := edKey(t)
	message := from + "\n" + strings.Repeat("\n", 100000) + "x\n" + strings.Repeat("\r", 70000) + "y"
	must.Check(t, verify(received(signed(t, message, keyOf(key))), key))
}

// Anything that is changed in what is signed is noticed, by our verifier at least.
func TestVerify_changed(t *testing.T) {
	key := edKey(t)
	text := received(signed(t, from+"Subject: x\n\nhello\n", keyOf(key)))
	must.OK(t, verify(text, key))
	for _, c := range []struct{ old, new string }{
		{"hello", "hallo"}, {"Subject: x", "Subject: y"}, {"Subject: x", "Subject: x\r\nTo: z"}, {"Subject: x", "Subject: x\r\nFrom: z"}, {"d=shop", "d=chop"},
	} {
		if verify(strings.Replace(text, c.old, c.new, 1), key) == nil {
			t.Errorf("%q in place of %q was not noticed", c.new, c.old)
		}
	}
}

func FuzzSign(f *testing.F) {
	for _, message := range messages() {
		f.Add(message)
	}
	key := edKey(f)
	f.Fuzz(func(t *testing.T, message string) {
		h, err := Read(strings.NewReader(message))
		if err != nil {
			if why := Unsigned(""); !errors.As(err, &why) || why == "" {
				t.Errorf("%v", err)
			}
			return
		}
		if n := len(h.names()); n > maxNames {
			t.Errorf("%d names", n)
		}
		text := received(string(must.Get(h.Sign([]Key{keyOf(key)}, now))(t)) + message)
		must.Check(t, verify(text, key))
	})
}

func BenchmarkSign(b *testing.B) {
	small := from + everyField() + "\n" + strings.Repeat("A line of the usual length, as people write them.\n", 50)
	large := from + "\n" + strings.Repeat("A line of the usual length, as people write them.\n", 2<<20)
	private := must.Get(rsa.GenerateKey(nil, 2048))(b)
	for _, c := range []struct {
		name, message string
		key           *PrivateKey
	}{{"rsa", small, must.Get(newKey(private))(b)}, {"ed25519", small, edKey(b)}, {"100MB", large, edKey(b)}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.message)))
			for b.Loop() {
				h := must.Get(Read(strings.NewReader(c.message)))(b)
				must.Get(h.Sign([]Key{keyOf(c.key)}, now))(b)
			}
		})
	}
	b.Run("bare rsa", func(b *testing.B) {
		key := must.Get(newKey(private))(b)
		for b.Loop() {
			must.Get(key.sign(make([]byte, 32)))(b)
		}
	})
	b.Run("parse rsa", func(b *testing.B) {
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must.Get(x509.MarshalPKCS8PrivateKey(private))(b)})
		for b.Loop() {
			must.Get(ParseKey(text))(b)
		}
	})
}
