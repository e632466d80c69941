package peers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

// NSD starts an NSD in charge of the zone of a domain, given as in a zone file.
func NSD(t testing.TB, domain, zone string) *Server {
	t.Helper()
	return NSDOf(t, map[string]string{domain: zone})
}

// NSDOf is NSD for more than one domain.
func NSDOf(t testing.TB, zones map[string]string) *Server {
	t.Helper()
	program, dir := find(t, "nsd"), t.TempDir()
	var list strings.Builder
	for domain, zone := range zones {
		write(t, filepath.Join(dir, domain), zone)
		fmt.Fprintf(&list, "zone:\n  name: %s\n  zonefile: %[1]s\n", domain)
	}
	return launch{name: "nsd", log: filepath.Join(dir, "log"), command: func(port string) *exec.Cmd {
		config := write(t, filepath.Join(dir, "nsd.conf"), fmt.Sprintf(`server:
  ip-address: 127.0.0.1@%s
  username: ""
  chroot: ""
  zonesdir: %[2]q
  database: ""
  pidfile: "%[2]s/pid"
  xfrdfile: "%[2]s/xfrd"
  xfrdir: %[2]q
  zonelistfile: "%[2]s/zones"
  server-count: 1
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
remote-control:
  control-enable: no
%[3]s`, port, dir, list.String()))
		return exec.Command(program, "-d", "-c", config)
	}}.start(t)
}

// Unbound starts an Unbound that asks another server about a domain below test, and nobody
// about other names.
func Unbound(t testing.TB, domain string, behind *Server) *Server {
	t.Helper()
	program, dir := find(t, "unbound"), t.TempDir()
	host, hostPort, _ := net.SplitHostPort(behind.Addr)
	return launch{name: "unbound", log: filepath.Join(dir, "log"), command: func(port string) *exec.Cmd {
		config := write(t, filepath.Join(dir, "unbound.conf"), fmt.Sprintf(`server:
  interface: 127.0.0.1
  port: %s
  do-daemonize: no
  username: ""
  chroot: ""
  directory: %q
  pidfile: ""
  use-syslog: no
  logfile: ""
  num-threads: 1
  module-config: "iterator"
  do-not-query-localhost: no
  domain-insecure: "test"
  local-zone: "test." nodefault
  local-zone: "invalid." refuse
remote-control:
  control-enable: no
stub-zone:
  name: %s
  stub-addr: %s@%s
`, port, dir, domain, host, hostPort))
		return exec.Command(program, "-d", "-c", config)
	}}.start(t)
}

// Sign signs the zone of a domain with a new key, by ldns. It returns the zone and the DS
// record of the key; options are those of ldns-signzone.
func Sign(t testing.TB, domain, zone string, options ...string) (signed, ds string) {
	t.Helper()
	generate, sign, dir := find(t, "ldns-keygen"), find(t, "ldns-signzone"), t.TempDir()
	run := func(program string, args ...string) string {
		cmd := exec.Command(program, args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %q: %v", program, args, err)
		}
		return strings.TrimSpace(string(out))
	}
	key := run(generate, "-a", "ECDSAP256SHA256", "-k", domain)
	write(t, filepath.Join(dir, "zone"), zone)
	run(sign, append(options, "-o", domain, "-f", "signed", "zone", key)...)
	read := func(name string) string { return string(must.Get(os.ReadFile(filepath.Join(dir, name)))(t)) }
	return read("signed"), strings.Join(strings.Fields(read(key+".ds")), " ")
}

// Spoil returns a signed zone in which the signature of the records of one type of a name is
// wrong: it is another record's.
func Spoil(t testing.TB, signed, name, rtype string) string {
	t.Helper()
	signature := regexp.MustCompile(`(?m)^(\S+\.)(\s+\d+\s+IN\s+RRSIG\s+)(\S+)( .* )(\S+)$`)
	spoilt, other := 0, signature.FindStringSubmatch(signed)[5]
	signed = signature.ReplaceAllStringFunc(signed, func(line string) string {
		m := signature.FindStringSubmatch(line)
		if m[1] != name+"." || m[3] != rtype {
			return line
		}
		spoilt++
		return m[1] + m[2] + m[3] + m[4] + other
	})
	if spoilt != 1 {
		t.Fatalf("%d signatures of %s %s", spoilt, rtype, name)
	}
	return signed
}

// Validator starts an Unbound that asks another server about domains below test, of which the
// first is signed: anchor is the DS record of its key. more are addresses and ports that it
// listens on as well, as Unbound writes them: 127.0.0.1@53.
func Validator(t testing.TB, anchor string, domains []string, behind *Server, more ...string) *Server {
	t.Helper()
	program, dir := find(t, "unbound"), t.TempDir()
	host, hostPort, _ := net.SplitHostPort(behind.Addr)
	var interfaces, stubs strings.Builder
	for _, i := range more {
		fmt.Fprintf(&interfaces, "  interface: %s\n", i)
	}
	for _, domain := range domains {
		fmt.Fprintf(&stubs, "stub-zone:\n  name: %s\n  stub-addr: %s@%s\n", domain, host, hostPort)
	}
	return launch{name: "unbound", log: filepath.Join(dir, "log"), command: func(port string) *exec.Cmd {
		config := write(t, filepath.Join(dir, "unbound.conf"), fmt.Sprintf(`server:
  interface: 127.0.0.1@%s
%s  do-daemonize: no
  username: ""
  chroot: ""
  directory: %q
  pidfile: ""
  use-syslog: no
  logfile: ""
  num-threads: 1
  module-config: "validator iterator"
  trust-anchor: %q
  val-log-level: 2
  do-not-query-localhost: no
  local-zone: "test." nodefault
remote-control:
  control-enable: no
%s`, port, interfaces.String(), dir, anchor, stubs.String()))
		return exec.Command(program, "-d", "-c", config)
	}}.start(t)
}

// PosttlsFinger runs Postfix's posttls-finger against a domain at a level of TLS, and returns
// all that it prints, its questions to name servers too. It is run, by root alone, in a mount
// namespace in which /etc/resolv.conf names the server at port 53 of 127.0.0.1.
func PosttlsFinger(t testing.TB, level, domain string) string {
	t.Helper()
	program, dir := find(t, "posttls-finger"), folder(t)
	resolvConf := write(t, filepath.Join(dir, "resolv.conf"), "nameserver 127.0.0.1\noptions trust-ad timeout:1 attempts:1\n")
	config := write(t, filepath.Join(dir, "main.cf"), "inet_protocols = ipv4\nmyhostname = client.test\n")
	// Postfix waits until nobody can be writing the file any more.
	must.OK(t, os.Chtimes(config, time.Time{}, time.Now().Add(-time.Hour)))
	cmd := exec.CommandContext(t.Context(), find(t, "unshare"), "--mount", "sh", "-c", `mount --bind "$1" /etc/resolv.conf && shift && exec "$@"`, "sh", resolvConf,
		program, "-v", "-l", level, "-o", "dnssec_probe=", domain) // there is no root zone to probe
	cmd.Env = append(os.Environ(), "MAIL_CONFIG="+dir)
	out, err := cmd.CombinedOutput()
	if !strings.Contains(string(out), "posttls-finger: ") {
		t.Fatalf("posttls-finger %s: %v: %s", domain, err, out)
	}
	return string(out)
}
