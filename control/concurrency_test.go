package control_test

import (
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
)

func TestReadConcurrencyRemote(t *testing.T) {
	for text, want := range map[string]int{"": 20, "120\n": 120, "0": 0} {
		if got := must.Get(control.ReadConcurrencyRemote(home(t, files{"concurrencyremote": text})))(t); got != want {
			t.Errorf("%q is %d", text, got)
		}
	}
	for _, text := range []string{"many\n", "65001\n", "-1\n"} {
		_, err := control.ReadConcurrencyRemote(home(t, files{"concurrencyremote": text}))
		refused(t, err, "concurrencyremote", 1, "from 0 to 65000")
	}
}
