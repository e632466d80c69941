package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// oneAddress leaves the loopback interface of a network of its own with 127.0.0.1 alone,
// as on macOS and the BSDs, and runs the rest.
const oneAddress = `set -e
ip link set lo up
ip address flush dev lo
ip address add 127.0.0.1/32 dev lo
exec "$@"`

// inOneAddress runs a program where lo has one address.
func inOneAddress(args ...string) (string, error) {
	out, err := exec.Command("unshare", append([]string{"-n", "sh", "-c", oneAddress, "sh"}, args...)...).CombinedOutput()
	return string(out), err
}

// mxf-try does with one loopback address.
func TestTry_oneAddress(t *testing.T) {
	if said, err := inOneAddress("true"); err != nil {
		t.Skipf("no network of its own (unshare and ip, as root): %v, %s", err, said)
	}
	if said, err := inOneAddress("sh", "-c", "ip route get 127.0.0.2 | grep -q '^local'"); err == nil {
		t.Skipf("127.0.0.2 is still there: %s", said)
	}
	said, err := inOneAddress(filepath.Join(programs(t), "mxf-try"))
	if err != nil || !strings.Contains(said, "arrived unchanged") {
		t.Errorf("%v\n%s", err, said)
	}
}
