package protocol

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
)

func TestReadServer(t *testing.T) {
	for _, c := range []struct {
		environ []string
		want    Server
	}{
		{nil, Server{}},
		{[]string{"TCPREMOTEIP=192.0.2.1"}, Server{IP: "192.0.2.1", Name: "192.0.2.1"}},
		{[]string{"TCPREMOTEIP=::1", "TCPREMOTEHOST=mx.example.org"}, Server{IP: "::1", Name: "mx.example.org"}},
		{[]string{"MXF_TLS=must", "MXF_INTLS="}, Server{}},
		{[]string{"MXF_TLS=verify", "MXF_INTLS=1"}, Server{Verify: true, InTLS: true}},
	} {
		if got := ReadServer(c.environ); got != c.want {
			t.Errorf("%q: %+v, want %+v", c.environ, got, c.want)
		}
	}
}

func TestFuse(t *testing.T) {
	if ctx := Fuse(0, smtpc.ErrFuse); ctx.Done() != nil {
		t.Error("no limit is one")
	}
	ctx := Fuse(time.Millisecond, smtpc.ErrFuse)
	<-ctx.Done()
	if cause := context.Cause(ctx); cause != smtpc.ErrFuse {
		t.Errorf("cause %v", cause)
	}
}

func TestFinish_exitCodes(t *testing.T) {
	none := func(cause error) error { return &report.NoTransaction{Err: cause} }
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, chain.ExitOK},
		{none(nil), chain.ExitNextExchanger},
		{none(errors.New("connection lost")), chain.ExitNextExchanger},
		{none(smtpc.ErrTLSNotOffered), chain.ExitNoTLS},
		{none(&smtpc.BrokenError{Cause: smtpc.ErrTLSFailed, Err: smtpc.ErrLost}), chain.ExitNoTLS},
		{none(&smtpc.RefusedError{Cause: smtpc.ErrStumbled}), chain.ExitStumbled},
		{none(&smtpc.BrokenError{Cause: smtpc.ErrEHLOLost, Err: smtpc.ErrLost}), chain.ExitNoEHLO},
		{&report.Fuse{}, chain.ExitFuse},
		{chain.Fail(chain.ExitUsage, "wrong"), chain.ExitUsage},
		{errors.New("broken"), chain.ExitTemporary},
	} {
		if got := chain.ExitCode(Finish(report.Stream{}, c.err)); got != c.want {
			t.Errorf("%v: exit %d, want %d", c.err, got, c.want)
		}
	}
}

func TestServer_TLS(t *testing.T) {
	for _, test := range []struct {
		environ []string
		verify  bool
		want    string
	}{
		{[]string{"SSL_PROTOCOL=TLSv1.3", "SSL_CIPHER=C", "SSL_TLS_SNI_SERVERNAME=sent.example", "SSL_PEER_VERIFIED=yes"}, false, "TLS: TLSv1.3 C verified sent.example"},
		{[]string{"SSL_PROTOCOL=TLSv1.2", "SSL_CIPHER=C", "SSL_TLS_SNI_SERVERNAME", "SSL_PEER_VERIFIED=no:expired"}, true, "TLS: TLSv1.2 C unverified name.example"},
		{[]string{"SSL_PROTOCOL=TLSv1.2", "SSL_CIPHER=C", "SSL_PEER_VERIFIED=no:cannot read trust anchors: open a\r\nb: no such file"}, false,
			"TLS: TLSv1.2 C unverified name.example (control/trustanchors:1: no such file)"},
		{[]string{"SSL_PROTOCOL=TLSv1.2", "SSL_CIPHER=C", "SSL_PEER_VERIFIED=no:certificate is for \"no:cannot read trust anchors: \""}, false,
			"TLS: TLSv1.2 C unverified name.example"},
		{[]string{"SSL_PROTOCOL=TLSv1.2"}, true, "TLS: TLSv1.2 unknown verified name.example"},
		{[]string{"SSL_PROTOCOL=TLSv1.2"}, false, "TLS: TLSv1.2 unknown unverified name.example"},
	} {
		server := Server{Name: "name.example", Verify: test.verify}
		tls := server.TLS(test.environ)
		if tls == nil || tls.String() != test.want {
			t.Errorf("%q: %v", test.environ, tls)
		}
	}
	nothing := []string{"SSL_CIPHER=C"}
	told := Server{Name: "name.example", Verify: true, InTLS: true}
	if tls := told.TLS(nothing); tls == nil || tls.String() != "TLS: unknown unknown verified name.example" {
		t.Errorf("TLS that nothing is told of: %v", tls)
	}
	told.Word = "login"
	if tls := told.TLS(nothing); tls == nil || tls.String() != "TLS: unknown unknown verified name.example login" {
		t.Errorf("TLS that a login wants: %v", tls)
	}
	told.InTLS = false
	if tls := told.TLS(nothing); tls != nil {
		t.Errorf("TLS out of nothing: %v", tls)
	}
}

func TestExporter(t *testing.T) {
	const tls = "SSL_PROTOCOL=TLSv1.3"
	binding := strings.Repeat("0c", 31) + "ff"
	for _, c := range []struct {
		assignments []string
		want        string
	}{
		{[]string{tls, "SSL_TLS_EXPORTER=" + binding}, binding},
		{[]string{"SSL_TLS_EXPORTER=" + strings.ToUpper(binding), tls, "OTHER=x"}, binding},
		{[]string{tls, "SSL_TLS_EXPORTER=" + strings.Repeat("00", 32), "SSL_TLS_EXPORTER=" + binding}, binding},
		{[]string{tls, "SSL_TLS_EXPORTER=" + binding, "SSL_TLS_EXPORTER"}, ""}, // removed
		{[]string{tls, "SSL_TLS_EXPORTER"}, ""},
		{[]string{tls, "SSL_TLS_EXPORTER="}, ""},
		{[]string{tls, "SSL_TLS_EXPORTER=" + binding[2:]}, ""},
		{[]string{tls, "SSL_TLS_EXPORTER=" + binding + "00"}, ""},
		{[]string{tls, "SSL_TLS_EXPORTER=" + binding[1:] + "g"}, ""},
		{[]string{tls}, ""},
		{[]string{"SSL_TLS_EXPORTER=" + binding}, ""}, // of nothing
		{[]string{tls, "SSL_TLS_EXPORTER=" + binding, "SSL_PROTOCOL"}, ""},
		{nil, ""},
	} {
		got := Exporter(c.assignments)
		if hex.EncodeToString(got) != c.want || c.want == "" && got != nil {
			t.Errorf("%q: %x, want %s", c.assignments, got, c.want)
		}
	}
}
