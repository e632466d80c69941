package control_test

import (
	"fmt"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
)

// BenchmarkRead measures what a delivery pays for control files: in a home that has
// only me, and in one that has all files and a thousand routes.
func BenchmarkRead(b *testing.B) {
	var routes strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&routes, "domain%d.example:relay%d.example.org:26\n", i, i%7)
	}
	for _, bench := range []struct {
		name string
		f    files
	}{
		{"defaults", nil},
		{"everything", files{
			"helohost": "out.example.org\n", "protocols": "qmtp:209:1:N:N:mxf-remote-qmtpc\nsmtp:25:0:N:Y:mxf-remote-smtpc\n",
			"smtproutes": routes.String(), "qmtproutes": "example.com:relay\n", "trustanchors": "/etc/ssl/cert.pem\n", "tlsstrictness": "2\n",
			"clientcert": "c\n", "clientkey": "k\n", "ipme": "192.0.2.1\n2001:db8::1\n", "timeoutconnect": "30\n", "timeoutremote": "600\n", "timeoutdns": "30\n",
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			h := home(b, bench.f)
			b.ReportAllocs()
			for b.Loop() {
				s := must.Get(control.Read(h))(b)
				must.Get(s.Protocols[len(s.Protocols)-1].Routes.Lookup("domain999.example"))(b)
			}
		})
	}
}

func BenchmarkReadClient(b *testing.B) {
	h := home(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		must.Get(control.ReadClient(h))(b)
	}
}

// BenchmarkRoutes checks a million routes, as every delivery does, and finds one.
func BenchmarkRoutes(b *testing.B) {
	var routes strings.Builder
	for i := range 1_000_000 {
		fmt.Fprintf(&routes, "customer-%06d.example.com:relay%d.example.org:26\n", i, i%7)
	}
	h := home(b, files{"protocols": "smtp:25:0:N:N:p\n", "smtproutes": routes.String()})
	s := must.Get(control.Read(h))(b)
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(routes.Len()))
		b.ReportAllocs()
		for b.Loop() {
			must.Get(control.Read(h))(b)
		}
	})
	for _, domain := range []string{"customer-999999.example.com", "elsewhere.example.net"} {
		b.Run("lookup/"+domain, func(b *testing.B) {
			b.SetBytes(int64(routes.Len()))
			b.ReportAllocs()
			for b.Loop() {
				must.Get(s.Protocols[0].Routes.Lookup(domain))(b)
			}
		})
	}
}
