package worker_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// newSecure returns a relay with STARTTLS, and the control files that verify it.
func newSecure(t *testing.T, answer func(*smtptest.Exchange) smtptest.Action) (*relay, map[string]string) {
	authority := tlstest.NewAuthority("authority")
	r := &relay{}
	r.TLS, r.Answer = authority.Leaf(nil, "127.0.0.1").Config(), answer
	return r.listen(t), map[string]string{"trustanchors": tlstest.Bundle(t, authority), "tlsstrictness": "2"}
}

// What TLS sessions and kept connections have deliveries share.
func TestTLS(t *testing.T) {
	for _, test := range []struct {
		name          string
		files         map[string]string
		between       func(h *host)
		connections   int32
		full, resumed uint64
	}{
		{"kept", nil, nil, 1, 1, 0},
		{"resumed", map[string]string{"connectionidle": "0"}, nil, 2, 1, 1},
		{"not resumed", map[string]string{"connectionidle": "0", "tlsresumption": "0"}, nil, 2, 2, 0},
		{"SIGHUP", nil, func(h *host) { h.Forget() }, 2, 2, 0},
		{"another level", nil, func(h *host) { h.control("tlsstrictness", "1") }, 2, 2, 0},
		{"another helohost", nil, func(h *host) { h.control("helohost", "other.example") }, 2, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, files := newSecure(t, nil)
			for name, text := range test.files {
				files[name] = text
			}
			h := newHost(t, r.at, files)
			for n := range 2 {
				if a := h.send("r@example.org"); a[0] != 'K' || !strings.Contains(a, "TLS: ") {
					t.Errorf("%s\n%s", a, h.traced())
				}
				if n == 0 && test.between != nil {
					test.between(h)
				}
			}
			if c := h.Counters(); c.Full != test.full || c.Resumed != test.resumed || c.Failed != 0 || r.came.Load() != test.connections {
				t.Errorf("%d connections, %+v\n%s", r.came.Load(), c, h.traced())
			}
			r.check(t)
		})
	}
}

// A handshake that fails with a session is made once more without one, before anything is concluded.
func TestTLS_failsWithSession(t *testing.T) {
	for _, strictness := range []string{"0", "2"} {
		t.Run(strictness, func(t *testing.T) {
			var handshakes atomic.Int32
			r, files := newSecure(t, func(e *smtptest.Exchange) smtptest.Action {
				if e.Phase == smtptest.Handshake && handshakes.Add(1) == 2 {
					return hangUp
				}
				return smtptest.Action{}
			})
			files["tlsstrictness"], files["connectionidle"] = strictness, "0"
			h := newHost(t, r.at, files)
			for range 2 {
				if a := h.send("r@example.org"); a[0] != 'K' || !strings.Contains(a, "TLS: ") {
					t.Errorf("%s\n%s", a, h.traced())
				}
			}
			if c := h.Counters(); r.came.Load() != 3 || c.Full != 2 || c.Failed != 1 || strings.Contains(h.traced(), "retry") || strings.Contains(h.traced(), "left: ") {
				t.Errorf("%d connections, %+v\n%s", r.came.Load(), c, h.traced())
			}
		})
	}
}

// A connection in the clear where TLS had failed or was refused is not kept.
func TestTLS_notKept(t *testing.T) {
	for name, test := range map[string]struct {
		phase smtptest.Phase
		act   smtptest.Action
	}{
		"refused": {smtptest.STARTTLS, say("454 no")},
		"failed":  {smtptest.Handshake, hangUp},
	} {
		t.Run(name, func(t *testing.T) {
			r, files := newSecure(t, func(e *smtptest.Exchange) smtptest.Action {
				if e.Phase == test.phase {
					return test.act
				}
				return smtptest.Action{}
			})
			files["tlsstrictness"] = "0"
			h := newHost(t, r.at, files)
			for range 2 {
				if a := h.send("r@example.org"); a[0] != 'K' || strings.Contains(a, "TLS: TLS") {
					t.Errorf("%s\n%s", a, h.traced())
				}
			}
			if strings.Contains(h.traced(), "reuse") {
				t.Error(h.traced())
			}
		})
	}
}
