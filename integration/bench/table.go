package main

import (
	"fmt"
	"io"
	"time"
)

// A table is what the bench prints.
type table struct{ rows [][5]string }

func (t *table) add(figure, ours, floor, bound, verdict string) {
	t.rows = append(t.rows, [5]string{figure, ours, floor, bound, verdict})
}

func (t *table) print(w io.Writer) {
	fmt.Fprintln(w, "| figure | ours | floor | bound | |")
	fmt.Fprintln(w, "|---|---|---|---|---|")
	for _, r := range t.rows {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", r[0], r[1], r[2], r[3], r[4])
	}
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**missed**"
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

func mb(bytes int64) string { return fmt.Sprintf("%.2f MB", float64(bytes)/(1<<20)) }

func rate(bytes float64, d time.Duration) string {
	return fmt.Sprintf("%.0f MB/s", bytes/(1<<20)/d.Seconds())
}

func times(a, b float64) string { return fmt.Sprintf("%.2f ×", a/b) }
