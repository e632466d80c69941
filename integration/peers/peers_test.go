package peers

import (
	"os/exec"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

func TestTraceFields(t *testing.T) {
	raw := []byte("Return-Path: <a@b>\nReceived: from x\n\tby y;\n z\nReceived: mine\nSubject: x\n\ny\n")
	f, rest, err := traceFields(raw, "return-path", "Received")
	if err != nil || f["return-path"] != "<a@b>" || f["Received"] != "from x\n\tby y;\n z" ||
		string(rest) != "Received: mine\nSubject: x\n\ny\n" {
		t.Errorf("%q, rest %q, error %v", f, rest, err)
	}
	if _, _, err := traceFields(raw, "Received"); err == nil {
		t.Error("a field that comes later was taken for the first")
	}
	if _, rest, err := traceFields([]byte("A: b"), "A"); err != nil || len(rest) != 0 {
		t.Errorf("rest %q, error %v", rest, err)
	}
}

func TestParseQueued(t *testing.T) {
	for _, c := range []struct{ raw, sender, data string }{
		{"s\x00a@peer.example\x00data", "s", "data"},
		{"\x00a@peer.example\x00", "", ""},
		{"s\x00a@peer.example\x00\x00data\x00more", "s", "\x00data\x00more"},
	} {
		m, err := parseQueued([]byte(c.raw))
		if err != nil || m.Sender != c.sender || len(m.Recipients) != 1 || string(m.Data) != c.data {
			t.Errorf("%q: %q, error %v", c.raw, m, err)
		}
	}
	for _, bad := range []string{"", "s", "s\x00", "s\x00a", "s\x00a@peer.example"} {
		if m, err := parseQueued([]byte(bad)); err == nil {
			t.Errorf("%q: %q without an error", bad, m)
		}
	}
}

// A server is gone when it was stopped, its children too.
func TestStopLeavesNothing(t *testing.T) {
	p := must.Get(run(exec.Command("sh", "-c", "sleep 1000 & sleep 1000")))(t)
	p.stop()
	select {
	case <-p.ended:
	default:
		t.Error("still there")
	}
}
