package chain

import "strings"

// Lookup returns the value of name in environ and whether it is there. If it is there
// twice the first one counts, as for getenv(3).
func Lookup(environ []string, name string) (string, bool) {
	for _, e := range environ {
		if n, v, ok := strings.Cut(e, "="); ok && n == name {
			return v, true
		}
	}
	return "", false
}

// Change returns a copy of environ with changes made, in order: "NAME=value"
// sets NAME, "NAME" alone removes it. A change without a name ("", "=x") does nothing.
func Change(environ, changes []string) []string {
	out := append(make([]string, 0, len(environ)+len(changes)), environ...)
	for _, change := range changes {
		name, _, sets := strings.Cut(change, "=")
		if name == "" {
			continue
		}
		out = Without(out, func(n string) bool { return n == name })
		if sets {
			out = append(out, change)
		}
	}
	return out
}

// Without returns a copy of environ without the variables whose names are unwanted.
func Without(environ []string, unwanted func(name string) bool) []string {
	out := make([]string, 0, len(environ))
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		if !unwanted(name) {
			out = append(out, e)
		}
	}
	return out
}

// TLSSetting reports whether an environment variable configures a TLS client. The
// client removes such variables for the program that it runs. The forms with a colon
// set a certificate for one server name.
func TLSSetting(name string) bool {
	switch name {
	case "CADIR", "CAFILE", "CERTFILE", "KEYFILE", "TLS_UID", "TLS_GID", "MXF_TLSHELLO", "MXF_TLSA", "MXF_TLSNAMES":
		return true
	}
	return strings.HasPrefix(name, "CERTFILE:") || strings.HasPrefix(name, "KEYFILE:")
}
