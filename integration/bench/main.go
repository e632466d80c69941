// Bench measures what one delivery costs and prints one table in markdown. A row has our
// figure, that of the floor (a Go program that does the bare minimum), and the bound that
// was set. The bench needs only the go command: no root, no fixed port, no network. A
// missed bound is shown and is not an error; a failed delivery is an error.
//
//	go run ./integration/bench            everything
//	PEER=path go run ./integration/bench  everything, and another qmail-remote
//	PART=word go run ./integration/bench  the parts with that word in their names (see measure)
//
// PEER is a program that takes the arguments of qmail-remote and reads its control files
// from $PEERHOME, by default /var/qmail. The bench mounts a home of its own over that
// folder, for this program alone, if the kernel allows it.
//
// Three programs run in processes of their own so that they do not disturb the figures:
// the sink (this program once more) has all the servers, launch starts what is measured,
// floor is what it is compared with.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/tlsc/tlstest"
)

func main() {
	var err error
	if len(os.Args) == 4 && os.Args[1] == "sink" {
		err = runSink(os.Args[2], os.Args[3])
	} else {
		err = measure()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const (
	module = "nightmare.mail/mxf"
	sender = "sender@" + domain
	// smallSize and largeSize are the two messages, bytes.
	smallSize = 3500
	largeSize = 100 << 20
	// benchLimit ends a bench that hangs.
	benchLimit = 20 * time.Minute
)

// A bench has what all measurements share.
type bench struct {
	ctx          context.Context
	dir          string
	bin          string
	mxf, floor   string // programs
	launcher     string
	small, large string // messages
	bundle       string // trust anchors: the sink's among those of the system
	single       string // trust anchors: the sink's alone
	sink         *sinkProcess
	clear        *lab.Home // TLS off
	verified     *lab.Home // STARTTLS verified
	routed       *lab.Home // TLS off; a route for plain QMTP, which does not follow the port of an SRV record
	table        table
}

func measure() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, benchLimit)
	defer cancel()
	dir, err := os.MkdirTemp("", "mxf-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	begin := time.Now()
	b := &bench{ctx: ctx, dir: dir, bin: filepath.Join(dir, "bin")}
	if err := b.setUp(); err != nil {
		return err
	}
	defer b.sink.stop()
	for _, part := range []struct {
		name string
		do   func() error
	}{
		{"one delivery", b.oneDelivery},
		{"processes and memory", b.inFlight},
		{"a large message", b.throughput},
		{"the tunnel", b.tunnel},
		{"turns", b.countTurns},
		{"a thousand deliveries", b.thousand},
		{"signatures and logins", b.identities},
		{"policies", b.policies},
		{"many deliveries in one process", b.spawned},
		{"sizes", b.sizes},
	} {
		if !strings.Contains(part.name, os.Getenv("PART")) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", part.name)
		if err := part.do(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	fmt.Printf("%s, %s/%s, %d CPUs, %s; the bench took %.0f s\n\n", time.Now().Format(time.DateOnly),
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), time.Since(begin).Seconds())
	b.table.print(os.Stdout)
	return nil
}

// setUp builds the programs, and makes messages, authorities, servers and homes.
func (b *bench) setUp() error {
	helpers := filepath.Join(b.dir, "helpers")
	for folder, packages := range map[string][]string{
		b.bin:   {module + "/cmd/..."},
		helpers: {module + "/integration/bench/floor", module + "/integration/bench/empty", module + "/integration/bench/launch"},
	} {
		if err := b.build(folder, packages); err != nil {
			return err
		}
	}
	b.mxf = filepath.Join(b.bin, "mxf-remote")
	b.floor, b.launcher = filepath.Join(helpers, "floor"), filepath.Join(helpers, "launch")
	for _, f := range []func() error{b.makeMessages, b.makeAuthority, b.makeHomes} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// build compiles packages as for a release, and then copies the programs, as make install
// does. The copy matters: on Linux with ext4 a file as the linker wrote it took a quarter
// longer to start than a copy, for our programs and for the floor.
func (b *bench) build(folder string, packages []string) error {
	fresh := folder + ".new"
	for _, dir := range []string{folder, fresh} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	args := append([]string{"build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", fresh + "/"}, packages...)
	cmd := exec.CommandContext(b.ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	programs, err := filepath.Glob(filepath.Join(fresh, "*"))
	if err != nil {
		return err
	}
	for _, path := range programs {
		program, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, filepath.Base(path)), program, 0o755)
		}
		if err != nil {
			return err
		}
	}
	return os.RemoveAll(fresh)
}

// makeMessages writes the two messages. Some of their lines begin with a dot.
func (b *bench) makeMessages() error {
	b.small, b.large = filepath.Join(b.dir, "small"), filepath.Join(b.dir, "large")
	for path, size := range map[string]int{b.small: smallSize, b.large: largeSize} {
		head := fmt.Sprintf("From: <%s>\nTo: <someone@%s>\nSubject: bench\n\n", sender, domain)
		body := []byte(head)
		for i := 0; len(body) < size; i++ {
			line := fmt.Sprintf("%08d the quick brown fox jumps over the lazy dog and does it once more", i)
			if i%100 == 99 {
				line = "." + line[1:]
			}
			body = append(append(body, line...), '\n')
		}
		body = append(body[:size-1], '\n')
		if err := os.WriteFile(path, body, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// systemBundles are the files in which systems keep their trust anchors.
var systemBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
}

// bundleSize is the number of authorities that are made if the system has none.
const bundleSize = 150

// makeAuthority makes the authority of the sink's certificate and starts the sink.
func (b *bench) makeAuthority() error {
	authority := tlstest.NewAuthority("mxf bench authority")
	leaf := authority.Leaf(nil, mxName, "*."+manyDomain)
	cert, key := append(leaf.PEM(), authority.PEM()...), leaf.KeyPEM()
	b.bundle, b.single = filepath.Join(b.dir, "bundle.pem"), filepath.Join(b.dir, "single.pem")
	certFile, keyFile := filepath.Join(b.dir, "cert.pem"), filepath.Join(b.dir, "key.pem")
	for path, data := range map[string][]byte{
		b.bundle: append(systemBundle(), authority.PEM()...), b.single: authority.PEM(), certFile: cert, keyFile: key,
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	var err error
	b.sink, err = startSink(b.ctx, certFile, keyFile)
	return err
}

func systemBundle() []byte {
	for _, path := range systemBundles {
		if pem, err := os.ReadFile(path); err == nil && len(pem) > 0 {
			return pem
		}
	}
	var pem []byte
	for i := range bundleSize {
		pem = append(pem, tlstest.NewAuthority(fmt.Sprintf("mxf bench stand-in %d", i)).PEM()...)
	}
	return pem
}

func (b *bench) makeHomes() (err error) {
	if b.clear, err = b.home("clear", nil); err != nil {
		return err
	}
	if b.verified, err = b.home("verified", map[string]string{"trustanchors": b.bundle, "tlsstrictness": "2"}); err != nil {
		return err
	}
	var routes []string
	for _, mode := range []string{"qmtp", "turns-qmtp"} {
		routes = append(routes, mode+"."+domain+":"+b.sink.facts.Addrs[mode])
	}
	b.routed, err = b.home("routed", map[string]string{"qmtproutes": strings.Join(routes, "\n")})
	return err
}

// home makes a home with the default protocols, on the sink's ports.
func (b *bench) home(name string, settings map[string]string) (*lab.Home, error) {
	h, err := lab.NewHome(filepath.Join(b.dir, "home-"+name))
	if err != nil {
		return nil, err
	}
	f := b.sink.facts
	err = h.Set("protocols",
		fmt.Sprintf("qmtps:%d:-1:Y:N:mxf-remote-qmtpc", f.Refused),
		fmt.Sprintf("qmtp:%d:1:N:N:mxf-remote-qmtpc", f.Refused),
		fmt.Sprintf("smtp:%d:0:N:Y:mxf-remote-smtpc", f.Port))
	for file, value := range settings {
		if err == nil {
			err = h.Set(file, value)
		}
	}
	return h, err
}

// environ returns the environment of a delivery from a home.
func (b *bench) environ(h *lab.Home) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "MXF_HOME=" + h.Dir, "DNSCACHEIP=" + b.sink.facts.DNS}
}

// deliver returns the command line of a delivery to one of the sink's modes.
func (b *bench) deliver(mode string) []string {
	host := mode + "." + domain
	return []string{b.mxf, host, sender, "someone@" + host}
}

// bare returns the command line of the floor for the same delivery.
func (b *bench) bare(what, mode string, options ...string) []string {
	argv := append([]string{b.floor, what}, options...)
	return append(argv, b.sink.facts.Addrs[mode], sender, "someone@"+mode+"."+domain)
}

// withTLS returns the floor's options for a server that is verified.
func withTLS(anchors string) []string { return []string{"-tls", "-name", mxName, "-ca", anchors} }
