package tlschain

import (
	"errors"
	"fmt"
	"testing"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/tlsc"
	"nightmare.mail/mxf/ucspitls"
)

// The exit codes of s6-tlsc and s6-ucspitlsc.
func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{&tlsc.Error{Kind: tlsc.KindSettings}, 96},
		{&tlsc.Error{Kind: tlsc.KindHandshake}, 97},
		{&tlsc.Error{Kind: tlsc.KindRunning}, 98},
		{fmt.Errorf("wrapped: %w", &tlsc.Error{Kind: tlsc.KindRunning}), 98},
		{saidError{&tlsc.Error{Kind: tlsc.KindRunning}}, 98},
		{ucspitls.UnknownCommand('x'), 100},
		{chain.Fail(chain.ExitUsage, "usage"), 100},
		{errors.New("anything else"), 111},
	} {
		if got := chain.ExitCode(coded(tt.err)); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
	}
}
