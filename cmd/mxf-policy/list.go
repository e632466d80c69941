package main

import (
	"bufio"
	"os"
	"strings"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/remote/mtasts"
)

// list is the command list.
func list(args []string) error {
	if len(args) > 0 {
		return chain.Fail(chain.ExitUsage, "%s", usage)
	}
	c, err := openCache(false)
	if err != nil {
		return err
	}
	entries, err := c.Entries()
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for _, e := range entries {
		_, _ = out.WriteString(line(e) + "\n") // Flush has the error
	}
	return out.Flush()
}

// line is what is listed of one domain.
func line(e *mtasts.Entry) string {
	fields := []string{e.Domain, "-", "-", "-", "-"}
	if e.Policy != nil {
		fields = []string{e.Domain, e.Policy.Mode.String(), stamp(e.Fetched), stamp(e.Expires()), e.ID}
	}
	if e.Failed != nil {
		fields = append(fields, "failed", e.Failed.Kind.String())
	}
	return strings.Join(fields, " ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
