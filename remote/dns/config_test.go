package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"nightmare.mail/mxf/control/regular"
	"nightmare.mail/mxf/integration/must"
)

func TestReadConfig(t *testing.T) {
	dir := t.TempDir()
	file := func(content string) string {
		path := filepath.Join(dir, strconv.Itoa(len(content)))
		must.OK(t, os.WriteFile(path, []byte(content), 0o644))
		return path
	}
	missing := filepath.Join(dir, "missing")
	var twenty, sixteen []string
	for i := range 20 {
		twenty = append(twenty, fmt.Sprintf("192.0.2.%d", i))
		sixteen = append(sixteen, fmt.Sprintf("192.0.2.%d:53", i))
	}
	for _, c := range []struct{ env, file, want string }{
		{"127.0.0.1", missing, "127.0.0.1:53"},
		{"127.0.0.1:5300", missing, "127.0.0.1:5300"},
		{"[::1]:5300", missing, "[::1]:5300"},
		{"::1", missing, "[::1]:53"},
		{"[::1]", missing, "[::1]:53"},
		{"127.0.0.1 127.0.0.2,127.0.0.3/127.0.0.4:54", missing, "127.0.0.1:53 127.0.0.2:53 127.0.0.3:53 127.0.0.4:54"},
		{" ,127.0.0.1,, 127.0.0.1/", missing, "127.0.0.1:53"},
		{strings.Join(twenty, "/"), missing, strings.Join(sixteen[:16], " ")},
		{"", missing, "127.0.0.1:53 [::1]:53"},
		{" ", missing, "127.0.0.1:53 [::1]:53"},
		{"", file(""), "127.0.0.1:53 [::1]:53"},
		{"", file("# nameserver 192.0.2.9\n;nameserver 192.0.2.8\nsearch example.org\nnameserver\n"), "127.0.0.1:53 [::1]:53"},
		{"", file("nameserver 192.0.2.1\nnameserver\t2001:db8::1 # two\noptions rotate\n  nameserver fe80::1%eth0\nnameserver none\nnameserver 192.0.2.1"),
			"192.0.2.1:53 [2001:db8::1]:53 [fe80::1%eth0]:53"},
		{"192.0.2.3", file("nameserver 192.0.2.1"), "192.0.2.3:53"},
		{"localhost", missing, "error"},
		{"127.0.0.1:0", missing, "error"},
		{"127.0.0.1:65536", missing, "error"},
		{"127.0.0.1:", missing, "error"},
		{"[::1", missing, "error"},
		{"[]", missing, "error"},
		{"127.0.0.1,x", missing, "error"},
		{"", dir, "error"}, // a directory
	} {
		config, err := ReadConfig(nil, c.env, c.file)
		list := fmt.Sprint(config.Servers) // in brackets
		got := list[1 : len(list)-1]
		if err != nil {
			var e *ConfigError
			if got = "error"; !errors.As(err, &e) || e.Source != c.file && e.Source != "$DNSCACHEIP" || e.Err == nil {
				t.Errorf("%q: %v", c.env, err)
			}
		}
		if got != c.want {
			t.Errorf("%q: %s, %v; want %s", c.env, got, err, c.want)
		}
	}
}

// Trusted servers are asked in place of all others, of which nothing is read.
func TestReadConfig_trusted(t *testing.T) {
	trusted := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:5300"), netip.MustParseAddrPort("127.0.0.1:53")}
	config, err := ReadConfig(trusted, "nonsense", t.TempDir())
	if err != nil || !slices.Equal(config.Servers, trusted[:2]) || config.TCP || config.Guess != "" || config.Source != "control/trustresolvers" {
		t.Errorf("%+v, %v", config, err)
	}
}

func TestResolvConf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	for content, want := range map[string]bool{
		"options edns0 use-vc\nnameserver 127.0.0.1\n": true, // ../field
		"nameserver 127.0.0.1\noptions\tusevc\n":       true, // FreeBSD
		"options tcp\n":                                true, // OpenBSD
		"options edns0 timeout:3\n#options use-vc\n":   false,
		"search use-vc\n":                              false,
	} {
		must.OK(t, os.WriteFile(file, []byte(content), 0o644))
		if config, err := ReadConfig(nil, "", file); err != nil || config.TCP != want {
			t.Errorf("%q: %v", content, err)
		}
	}
	// It is opened without waiting, and the error has the remedy.
	fifo := filepath.Join(t.TempDir(), "fifo")
	must.OK(t, syscall.Mkfifo(fifo, 0o600))
	_, err := ReadConfig(nil, "", fifo)
	want := fmt.Sprintf("%s: expected a file that can be read, or the name servers in $DNSCACHEIP: open %[1]s: %v", fifo, regular.ErrNot)
	if err == nil || err.Error() != want || !errors.Is(err, regular.ErrNot) {
		t.Errorf("%v, want %s", err, want)
	}
}

// It is known who named the name servers.
func TestReadConfig_source(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	for env, want := range map[string]string{"": file, "127.0.0.1": "$DNSCACHEIP"} {
		if config, err := ReadConfig(nil, env, file); err != nil || config.Source != want {
			t.Errorf("%q: %+v, %v", env, config, err)
		}
	}
}
