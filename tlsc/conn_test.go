package tlsc

import (
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"testing"

	"nightmare.mail/mxf/tlsc/tlstest"
)

// Both ends compute the same value, where TLS has one.
func TestExporter(t *testing.T) {
	pair := newCA("root").Leaf(nil, host).Pair()
	seen := map[string]bool{}
	for version := uint16(tls.VersionTLS10); version <= tls.VersionTLS13; version++ {
		for range 2 {
			c, theirs := exporters(t, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: version, MaxVersion: version, Time: testClock})
			ours := hex.EncodeToString(c.Exporter())
			if version < tls.VersionTLS12 {
				theirs = ""
			}
			if ours != theirs || c.Facts().Version != versionName(version) {
				t.Errorf("%s: exporter %q, the server's %q", c.Facts().Version, ours, theirs)
			}
			if version >= tls.VersionTLS12 && (len(ours) != 2*exporterLength || seen[ours]) {
				t.Errorf("%s: exporter %q: want %d bytes that no other connection has", c.Facts().Version, ours, exporterLength)
			}
			seen[ours] = true
			// It is the same at any time.
			io.ReadAll(c)
			if again := hex.EncodeToString(c.Exporter()); again != ours {
				t.Errorf("%s: exporter %q, later %q", c.Facts().Version, ours, again)
			}
		}
	}
}

// exporters makes a handshake and returns our end and the server's value.
func exporters(t *testing.T, config *tls.Config) (*Conn, string) {
	t.Helper()
	values := make(chan string, 1)
	client := tlstest.Serve(t, func(conn *net.TCPConn) {
		server := tls.Server(conn, config)
		err := server.Handshake()
		value := []byte(nil)
		if err == nil {
			state := server.ConnectionState()
			value, err = state.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
		}
		if err != nil {
			values <- fmt.Sprint(err)
			return
		}
		values <- hex.EncodeToString(value)
		server.Write([]byte("hello"))
		server.Close()
	})
	c, err := shake(t, client, trusting(""), told(host))
	if err != nil {
		t.Fatal(err)
	}
	return c, <-values
}

// $GODEBUG can have crypto/tls give a value that binds nothing.
func TestExporter_notExtended(t *testing.T) {
	pair := newCA("root").Leaf(nil, host).Pair()
	for _, godebug := range []string{"", "tlsunsafeekm=1"} {
		t.Setenv("GODEBUG", godebug)
		c, _ := exporters(t, &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: tls.VersionTLS12, Time: testClock})
		c.wire.plain.extended = false
		if got := c.Exporter(); got != nil {
			t.Errorf("%s: exporter %x without an extended master secret", godebug, got)
		}
	}
}
