package integration

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Where deliveries come from, and by what name, in a network that has several addresses, and
// ports that have a meaning of their own. The
// scripts are like those of TestScripts.
func TestSources(t *testing.T) {
	if apart(t, apartAddresses) {
		runAllWays(t, programs(t), testscript.Params{Dir: "testdata/apart"})
	}
}
