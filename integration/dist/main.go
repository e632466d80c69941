// Dist makes a release of a commit: what make dist is. From the source that git has for
// HEAD it builds the programs for each target, and packs them:
//
//	mxf-1.2.3.tar.gz                the source, with its commit in it
//	mxf-1.2.3-linux-amd64.tar.gz    programs, manual pages, examples, licences
//	mxf-1.2.3-linux-amd64.deb       the same for dpkg, and so .rpm and .apk
//	mxf-1.2.3-linux-amd64.cdx.json  of what the programs are made (CycloneDX)
//	SHA256SUMS
//
// The same commit and the same Go give the same bytes, wherever and whenever it runs.
// Nothing is taken from the folder, the clock, the user or the machine: all times are the
// commit's, all owners root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"nightmare.mail/mxf/integration/target"
)

func main() {
	out := flag.String("o", "dist", "the `folder` for what is made; it must not be there, or be empty")
	names := flag.String("targets", "", "`targets` with commas between them, such as linux-amd64; without it all")
	flag.Parse()
	targets, err := chosen(*names)
	if err == nil && flag.NArg() > 0 {
		err = fmt.Errorf("unknown argument %q", flag.Arg(0))
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		err = release(ctx, ".", *out, targets, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

// chosen reads the names of targets.
func chosen(names string) ([]target.Target, error) {
	if names == "" {
		return target.All, nil
	}
	var list []target.Target
	for name := range strings.SplitSeq(names, ",") {
		t, known := target.Named(name)
		if !known {
			return nil, fmt.Errorf("unknown target %q; they are %v", name, target.All)
		}
		list = append(list, t)
	}
	return list, nil
}

// release makes the release of the commit that is checked out in root, and says on log what
// it does. What it needs on the way is in a temporary folder, which is gone in the end.
func release(ctx context.Context, root, out string, targets []target.Target, log io.Writer) (err error) {
	if err := empty(out); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "mxf-dist")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	begin := time.Now()
	s, err := export(ctx, root, work)
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "mxf %s, commit %s of %s\n", s.version, s.commit, s.time.Format(time.DateOnly))
	if err := pack(place(out, s.name()+".tar.gz"), s.name(), s.time, s.files); err != nil {
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	for _, t := range targets {
		if err := s.releaseFor(ctx, t, out); err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		fmt.Fprintf(log, "%8s  %s\n", time.Since(begin).Round(time.Second), t)
	}
	return writeSums(out)
}

// empty makes sure that a folder is there and that nothing is in it.
func empty(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(folder)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty: it has %s", folder, entries[0].Name())
	}
	return err
}

// releaseFor makes what there is for one target.
func (s *source) releaseFor(ctx context.Context, t target.Target, out string) error {
	programs, err := s.build(ctx, t)
	if err != nil {
		return err
	}
	name := s.name() + "-" + t.String()
	bill := place(out, name+".cdx.json")
	if err := s.writeBill(bill, t, programs); err != nil {
		return err
	}
	// Compressing takes the longest, and each of these uses one processor.
	jobs := []func() error{func() error { return pack(place(out, name+".tar.gz"), name, s.time, s.archived(programs, bill)) }}
	if t.Package != "" {
		for _, f := range formats {
			jobs = append(jobs, func() error { return s.pack(ctx, f, t, place(out, name+"."+f.suffix), s.installed(programs, bill)) })
		}
	}
	errs := make([]error, len(jobs))
	var all sync.WaitGroup
	for i, job := range jobs {
		all.Go(func() { errs[i] = job() })
	}
	all.Wait()
	return errors.Join(errs...)
}
