package integration

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nightmare.mail/mxf/integration/lab"
)

// MTA-STS, with policies by HTTPS on port 443, which a network of its own has.
//
//	mxf-remote ──► name server, SMTP
//	   └── mxf-policy ──► name server, HTTPS
//
// The scripts are like those of TestScripts. More commands:
//
//	httpsserver NAME ADDR FILE OPTION...  a server whose answer is FILE; see httpsServer
//	fetches N                    so many connections to those were made
//	age DOMAIN DURATION          what the cache has of DOMAIN becomes older: fetched, failed, last use
//	used DOMAIN MIN MAX          how long ago the cache has it that DOMAIN was used
//	tlsaof FILE VARIABLE         the data of the TLSA record 3 1 1 for a certificate
//
// Each server of policies has an address that no other script uses: scripts run at the same
// time, and the port is the same for all.
func TestMTASTS(t *testing.T) {
	if apart(t, nil) {
		runScripts(t, "testdata/sts")
	}
}

var mtastsCommands = map[string]command{
	"httpsserver": plain(3, (*rig).httpsServer),
	"fetches":     plain(1, (*rig).fetches),
	"age":         plain(2, (*rig).age),
	"used":        plain(3, (*rig).used),
	"tlsaof":      plain(2, tlsaOf),
}

// httpsServer starts a server of policies. Options: those of common; status=LINE, header=LINE,
// type=TYPE (none: without a media type), size=BYTES (so many bytes, with empty lines). The
// faults are those of lab.HTTPS.
func (r *rig) httpsServer(ts *testscript.TestScript, args []string) error {
	name, addr, err := r.begin(lab.ProtocolHTTPS, args)
	if err != nil {
		return err
	}
	config := lab.HTTPS{Name: name, Faults: make(lab.Faults), Body: ts.ReadFile(args[2])}
	cert, media := "good", "text/plain"
	for _, option := range args[3:] {
		key, value, _ := strings.Cut(option, "=")
		known, err := r.common(&config.TLS, config.Faults, &cert, key, value)
		switch key {
		case "status":
			config.Status = value
		case "header":
			config.Header = append(config.Header, value)
		case "type":
			media = value
		case "size":
			var size int
			if size, err = strconv.Atoi(value); err == nil {
				config.Body += strings.Repeat("\n", max(0, size-len(config.Body)))
			}
		default:
			if err == nil && !known {
				err = fmt.Errorf("unknown option %q", key)
			}
		}
		if err != nil {
			return err
		}
	}
	if media != "none" {
		config.Header = append(config.Header, "Content-Type: "+media)
	}
	if config.TLS.Certificate, err = r.certificate(cert, name, addr); err != nil {
		return err
	}
	s, err := r.HTTPS(addr, config)
	return r.started(lab.ProtocolHTTPS, name, s, err)
}

func (r *rig) fetches(_ *testscript.TestScript, args []string) error {
	return count("policies were asked for", args[0], func() (n int) {
		for _, s := range r.Inbox.Sessions() {
			if s.Protocol == lab.ProtocolHTTPS {
				n++
			}
		}
		return n
	})
}

// cacheFile is the file of a policy domain.
func (r *rig) cacheFile(domain string) string { return r.Home.Path("sts/" + domain) }

// cacheTime is a line of a cache file that has a time.
var cacheTime = regexp.MustCompile(`(?m)^(fetched|failed) (\d+)`)

func (r *rig) age(_ *testscript.TestScript, args []string) error {
	older, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	path := r.cacheFile(args[0])
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data = cacheTime.ReplaceAllFunc(data, func(line []byte) []byte {
		word, digits, _ := strings.Cut(string(line), " ")
		seconds, _ := strconv.ParseInt(digits, 10, 64)
		return fmt.Appendf(nil, "%s %d", word, seconds-int64(older/time.Second))
	})
	before := info.ModTime().Add(-older)
	return errors.Join(os.WriteFile(path, data, 0o644), os.Chtimes(path, before, before))
}

func (r *rig) used(_ *testscript.TestScript, args []string) error {
	least, err := time.ParseDuration(args[1])
	most, err2 := time.ParseDuration(args[2])
	info, err3 := os.Stat(r.cacheFile(args[0]))
	if err = errors.Join(err, err2, err3); err != nil {
		return err
	}
	if ago := time.Since(info.ModTime()); ago < least || ago > most {
		return fmt.Errorf("it was used %v ago", ago)
	}
	return nil
}

// tlsaOf sets a variable to the data of a TLSA record, as a zone has it.
func tlsaOf(_ *rig, ts *testscript.TestScript, args []string) error {
	block, _ := pem.Decode([]byte(ts.ReadFile(args[0])))
	if block == nil {
		return errors.New("no certificate")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	ts.Setenv(args[1], fmt.Sprintf("3 1 1 %x", sha256.Sum256(certificate.RawSubjectPublicKeyInfo)))
	return nil
}
