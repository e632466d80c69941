package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
)

const (
	mostAtOnce = 64
	// mostSpread is the longest time over which fetches are spread, in seconds: a day, after
	// which cron comes again.
	mostSpread = 86400
)

// refresh is the command refresh: first what nobody needs goes, then what is due is
// fetched.
func refresh(args []string) error {
	atOnce, spread := 4, 0
	rest, err := chain.ParseOptions(args, []chain.Option{
		{Short: 'j', Take: chain.Count(&atOnce, 1, mostAtOnce)},
		{Short: 's', Take: chain.Count(&spread, 0, mostSpread)},
	})
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return chain.Fail(chain.ExitUsage, "%s", usage)
	}
	f, err := openFetcher(false)
	if err != nil {
		return err
	}
	if err := f.Sweep(); err != nil {
		return err
	}
	due, err := f.due()
	if err != nil {
		return err
	}
	failed := f.refreshAll(due, atOnce, time.Duration(spread)*time.Second)
	if failed > 0 {
		return chain.Fail(chain.ExitNotFetched, "%d of %d policies could not be fetched", failed, len(due))
	}
	return nil
}

// due returns the domains to fetch, shuffled.
func (f *fetcher) due() ([]string, error) {
	entries, err := f.Entries()
	if err != nil {
		return nil, err
	}
	var due []string
	for _, e := range entries {
		if f.Due(e) {
			due = append(due, e.Domain)
		}
	}
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	return due, nil
}

// refreshAll fetches some policies at once, and begins them evenly over a time. It prints
// a line for each that failed, and returns their number.
func (f *fetcher) refreshAll(domains []string, atOnce int, spread time.Duration) (failed int) {
	next := make(chan string)
	failures := make(chan error)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for domain := range next {
				failures <- f.refreshOne(domain)
			}
		})
	}
	go func() {
		for i, domain := range domains {
			if i > 0 {
				time.Sleep(spread / time.Duration(len(domains)))
			}
			next <- domain
		}
		close(next)
		workers.Wait()
		close(failures)
	}()
	for err := range failures {
		if err != nil {
			failed++
			fmt.Fprintln(os.Stdout, err)
		}
	}
	return failed
}

// refreshOne fetches the policy of one domain, unless a delivery has done so by now. The
// error has the domain.
func (f *fetcher) refreshOne(domain string) (err error) {
	defer chain.Recover(func(what, _ string) { err = errors.New(domain + ": " + what) })
	// Whoever holds the lock gives it back within mtasts.LockWait.
	lock, err := f.Lock(context.Background(), domain)
	if err != nil {
		return fmt.Errorf("%s: no lock: %w", domain, err)
	}
	defer lock.Unlock()
	old, _ := f.Load(domain)
	if !f.Due(old) {
		return nil
	}
	// A record that is gone, or cannot be had now, does not end a policy.
	id, _ := f.ask(domain)
	_, failed, stored := f.fetch(domain, cmp.Or(id, old.ID), old.Used)
	switch {
	case failed != nil:
		return fmt.Errorf("%s: %w", domain, failed)
	case stored != nil:
		return fmt.Errorf("%s: cannot be stored: %w", domain, stored)
	}
	return nil
}
