package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/mtasts"
)

// fetchOne is the command fetch. Who gives the id has looked at the record, and holds the
// lock.
func fetchOne(args []string) error {
	look := false
	args, err := chain.ParseOptions(args, []chain.Option{{Short: 'n', Set: func() { look = true }}})
	if err != nil {
		return err
	}
	if len(args) < 1 || len(args) > 2 {
		return chain.Fail(chain.ExitUsage, "%s", usage)
	}
	domain := mtasts.ParseDomain(args[0])
	switch {
	case domain == "":
		return chain.Fail(chain.ExitUsage, "%q is not a domain that can have a policy", args[0])
	case len(args) == 2 && !mtasts.IsID(args[1]):
		return chain.Fail(chain.ExitUsage, "%q is not an id: 1 to 32 letters and digits", args[1])
	}
	f, err := openFetcher(look)
	if err != nil {
		return err
	}
	if len(args) == 2 {
		return f.show(domain, args[1])
	}
	id, err := f.ask(domain)
	if err != nil {
		return chain.Fail(chain.ExitNotFetched, "%s: %w", domain, err)
	}
	if id == "" {
		return chain.Fail(chain.ExitNotFetched, "%s has no MTA-STS: there is no single good record at %s", domain, mtasts.RecordName(domain))
	}
	if look {
		return f.show(domain, id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), mtasts.LockWait)
	defer cancel()
	lock, err := f.Lock(ctx, domain)
	if err == mtasts.ErrBusy {
		return chain.Fail(chain.ExitNotFetched, "%s: %w", domain, err)
	}
	defer lock.Unlock() // nil where there can be no lock, as on a full disk
	return f.show(domain, id)
}

// ask returns the id in the TXT record of a domain, "" if there is no MTA-STS.
func (f *fetcher) ask(domain string) (id string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), mtasts.FetchLimit)
	defer cancel()
	answer := f.resolver.Lookup(ctx, dns.Question{Name: mtasts.RecordName(domain), Type: dns.TypeTXT})
	if answer.Failed() {
		return "", fmt.Errorf("cannot look up %s: %w", mtasts.RecordName(domain), answer.Err)
	}
	return mtasts.ParseRecord(answer.TXT), nil
}

// show fetches a policy and prints the cache file.
func (f *fetcher) show(domain, id string) error {
	entry, failed, stored := f.fetch(domain, id, time.Time{})
	if _, err := os.Stdout.Write(entry.Encode()); err != nil {
		return err
	}
	if stored != nil {
		chain.Complain("mxf-policy", "warning", fmt.Sprintf("what is known of %s cannot be stored: %v", domain, stored))
	}
	if failed != nil {
		return chain.Fail(chain.ExitNotFetched, "%w", failed)
	}
	return nil
}

// fetch fetches a policy and stores it, or that this failed. used is the last use; zero:
// now. The entry is good also where it could not be stored.
func (f *fetcher) fetch(domain, id string, used time.Time) (entry *mtasts.Entry, failed *mtasts.Failure, stored error) {
	text, policy, failed := f.client.Fetch(context.Background(), domain)
	switch {
	case failed != nil && f.look:
		return &mtasts.Entry{Domain: domain, Failed: failed}, failed, nil
	case f.look:
		return &mtasts.Entry{Domain: domain, ID: id, Fetched: time.Unix(time.Now().Unix(), 0), Text: text, Policy: policy}, nil, nil
	case failed != nil:
		entry, stored = f.FetchFailed(domain, failed, used)
		return entry, failed, stored
	}
	entry, stored = f.Fetched(domain, id, text, policy, used)
	return entry, nil, stored
}
