package smtpc

import (
	"slices"
	"strings"

	"nightmare.mail/mxf/control/secret"
)

const (
	// concealed takes the place of a secret in foreign text.
	concealed = "(secret)"
	// minConcealed is the length from which a secret is replaced wherever it stands, in
	// bytes. A shorter one is replaced as a whole word only: it may stand in other words.
	minConcealed = 6
)

// conceal returns text of the server without the secrets of the session: the password or the
// token, and each line in base64 that was sent. Whatever is kept or shown of the server's
// words comes through here first.
func (s *Session) conceal(text string) string {
	if len(s.secrets) == 0 {
		return text
	}
	return withoutSecrets(text, s.secrets)
}

// withoutSecrets replaces each run of bytes that belong to secrets. CR goes too: what shows
// the text leaves it out, and could put a secret together that way.
func withoutSecrets(text string, secrets []secret.Secret) string {
	text = strings.ReplaceAll(text, "\r", "")
	var hidden []bool // by byte of text; nil: none
	for _, s := range secrets {
		word := s.Reveal()
		for from, marked := 0, 0; word != ""; {
			i := strings.Index(text[from:], word)
			if i < 0 {
				break
			}
			i += from
			from = i + 1
			end := i + len(word)
			if len(word) < minConcealed && !standsAlone(text, i, end) {
				continue
			}
			if hidden == nil {
				hidden = make([]bool, len(text))
			}
			for marked = max(marked, i); marked < end; marked++ {
				hidden[marked] = true
			}
		}
	}
	if hidden == nil {
		return text
	}
	var b strings.Builder
	for i := range len(text) {
		switch {
		case !hidden[i]:
			b.WriteByte(text[i])
		case i == 0 || !hidden[i-1]:
			b.WriteString(concealed)
		}
	}
	return b.String()
}

// standsAlone reports whether text[i:end] is not part of a longer word.
func standsAlone(text string, i, end int) bool {
	return (i == 0 || !inWord(text[i-1])) && (end == len(text) || !inWord(text[end]))
}

func inWord(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || c > 127
}

// concealLine is conceal for a line of a reply. Its code stays, so that it remains a reply.
func (s *Session) concealLine(line string) string {
	clear := s.conceal(line)
	if n := len("250-"); clear != line && len(line) >= n && !strings.HasPrefix(clear, line[:n]) {
		if _, _, ok := parseReplyLine(line); ok {
			return line[:n] + concealed
		}
	}
	return clear
}

// keepSecret has words concealed from now on.
func (s *Session) keepSecret(words string) {
	if hides := secret.New(words); !hides.IsZero() && !slices.Contains(s.secrets, hides) {
		s.secrets = append(s.secrets, hides)
	}
}
