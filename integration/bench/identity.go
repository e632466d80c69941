package main

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"nightmare.mail/mxf/integration/bench/runs"
	"nightmare.mail/mxf/integration/lab"
)

const (
	rsaBits = 2048
	// bareSignatures is how often crypto/rsa signs by itself.
	bareSignatures = 200
	// rsaFactor is how many bare signatures one of ours may take.
	rsaFactor = 2
	// ed25519More, largeMore and loginMore are how much longer a delivery may take that is signed
	// with Ed25519, has 100 MB to sign, or logs in.
	ed25519More = 500 * time.Microsecond
	largeMore   = 500 * time.Millisecond
	loginMore   = 200 * time.Microsecond
	// signingPeak is how much more memory a signed delivery may take, bytes.
	signingPeak = 1 << 20
	// emptyLines is the number of empty lines of a message, in front of another line.
	emptyLines = 32 << 20
)

// identities measures what a delivery costs more that is signed, or logs in.
func (b *bench) identities() error {
	rsaKey, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		return err
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	var signing [2]*lab.Home
	for i, key := range []any{rsaKey, edKey} {
		if signing[i], err = b.signing(fmt.Sprintf("signing-%d", i), key); err != nil {
			return err
		}
	}
	return errors.Join(b.signSmall(signing[0], signing[1], bare(rsaKey)), b.signLarge(signing[0]), b.logIn())
}

// signing makes a home that signs.
func (b *bench) signing(name string, key any) (*lab.Home, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	h, err := b.home(name, map[string]string{"signingkeys": domain + ":bench:control/key"})
	if err != nil {
		return nil, err
	}
	return h, os.WriteFile(h.Path("control/key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// bare returns how long a signature of crypto/rsa takes.
func bare(key *rsa.PrivateKey) time.Duration {
	hash := sha256.Sum256(nil)
	times := make([]time.Duration, bareSignatures)
	for i := range times {
		begin := time.Now()
		_, _ = rsa.SignPKCS1v15(nil, key, crypto.SHA256, hash[:])
		times[i] = time.Since(begin)
	}
	slices.Sort(times)
	return median(times)
}

// beside runs one delivery n times from each of some homes, in turn.
func (b *bench) beside(n int, stdin string, argv []string, homes ...*lab.Home) ([][]runs.Result, error) {
	var environs, programs [][]string
	for _, h := range homes {
		environs, programs = append(environs, b.environ(h)), append(programs, argv)
	}
	return b.alternateIn(n, stdin, environs, programs)
}

// signSmall measures small messages.
func (b *bench) signSmall(withRSA, withEd25519 *lab.Home, signature time.Duration) error {
	results, err := b.beside(inARow, b.small, b.deliver("fast"), b.clear, withRSA, withEd25519)
	if err != nil {
		return err
	}
	unsigned := mean(values(results[0], cpu))
	for i, kind := range []struct {
		name, beneath string
		more          time.Duration
	}{
		{"RSA of 2048 bits", fmt.Sprintf("; a bare signature: %s", ms(signature)), rsaFactor * signature},
		{"Ed25519", "", ed25519More},
	} {
		ours := mean(values(results[i+1], cpu))
		b.table.add("3.5 KB signed with "+kind.name+": CPU", ms(ours), "unsigned: "+ms(unsigned)+kind.beneath,
			fmt.Sprintf("≤ unsigned + %s; it is + %s", ms(kind.more), ms(ours-unsigned)), verdict(ours-unsigned <= kind.more))
		b.table.add("3.5 KB signed with "+kind.name+": wall", ms(median(values(results[i+1], wall))), "unsigned: "+ms(median(values(results[0], wall))), "", "")
		b.addPeak("3.5 KB signed with "+kind.name, results[0], results[i+1])
	}
	return nil
}

// signLarge measures large messages.
func (b *bench) signLarge(signing *lab.Home) error {
	lines := b.small + "-lines"
	text := slices.Concat([]byte("From: <"+sender+">\n\n"), bytes.Repeat([]byte("\n"), emptyLines), []byte("the end\n"))
	if err := os.WriteFile(lines, text, 0o600); err != nil {
		return err
	}
	for _, message := range []struct {
		name, path string
		bounded    bool
	}{{"100 MB", b.large, true}, {"32 MB of empty lines", lines, false}} {
		results, err := b.beside(throughputRuns, message.path, b.deliver("data"), b.clear, signing)
		if err != nil {
			return err
		}
		unsigned, ours := median(values(results[0], wall)), median(values(results[1], wall))
		bound, met := "", ""
		if message.bounded {
			bound, met = fmt.Sprintf("≤ unsigned + %s; it is + %s", ms(largeMore), ms(ours-unsigned)), verdict(ours-unsigned <= largeMore)
		}
		b.table.add(message.name+" signed with RSA: wall", ms(ours), "unsigned: "+ms(unsigned), bound, met)
		b.addPeak(message.name+" signed with RSA", results[0], results[1])
	}
	return nil
}

func (b *bench) addPeak(name string, without, with []runs.Result) {
	unsigned, ours := median(values(without, peak)), median(values(with, peak))
	b.table.add(name+": peak memory", mb(ours), "unsigned: "+mb(unsigned),
		fmt.Sprintf("≤ unsigned + %s; it is + %s", mb(signingPeak), mb(ours-unsigned)), verdict(ours-unsigned <= signingPeak))
}

// logIn measures a login with PLAIN at a relay.
func (b *bench) logIn() error {
	addr := b.sink.facts.Addrs
	routes := "login." + domain + ":" + addr["login"] + "\nturns-login." + domain + ":" + addr["turns-login"]
	var homes [2]*lab.Home
	for i, settings := range []map[string]string{
		{"smtproutes": routes},
		{"smtproutes": routes, "credentials": fastAddress + "::" + sender + ":password,clear:no secret"},
	} {
		h, err := b.home(fmt.Sprintf("login-%d", i), settings)
		if err != nil {
			return err
		}
		if homes[i] = h; settings["credentials"] != "" {
			if err := os.Chmod(h.Path("control/credentials"), 0o600); err != nil {
				return err
			}
		}
	}
	results, err := b.beside(inARow, b.small, b.deliver("login"), homes[:]...)
	if err != nil {
		return err
	}
	without, with := mean(values(results[0], cpu)), mean(values(results[1], cpu))
	b.table.add("one delivery with a login by PLAIN, clear: CPU", ms(with), "without: "+ms(without),
		fmt.Sprintf("≤ without + %s; it is + %s", ms(loginMore), ms(with-without)), verdict(with-without <= loginMore))
	var turns [2]int
	for i, h := range homes {
		if turns[i], _, err = b.turns("turns-login", h); err != nil {
			return err
		}
	}
	b.table.add("turns, SMTP with PIPELINING and a login by PLAIN, clear", fmt.Sprint(turns[1]), fmt.Sprintf("without: %d", turns[0]),
		"1 more", verdict(turns[1] == turns[0]+1))
	return nil
}
