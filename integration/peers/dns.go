package peers

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
)

// NSD starts an NSD in charge of the zone of a domain, given as in a zone file.
func NSD(t testing.TB, domain, zone string) *Server {
	t.Helper()
	program, dir := find(t, "nsd"), t.TempDir()
	write(t, filepath.Join(dir, "zone"), zone)
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
zone:
  name: %[3]s
  zonefile: zone
`, port, dir, domain))
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
