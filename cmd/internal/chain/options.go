package chain

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// An Option is one option of a command line. A flag has Set; an option with a value has
// Take.
type Option struct {
	Short byte     // 0: none
	Long  []string // names without the dashes; all mean the same
	Set   func()
	Take  func(value string) error
}

// ParseOptions reads options from the front of args and returns what follows them.
// Flags can be bundled (-Sjz). A value stands in the same argument or in the next
// (-K60000, -zK 60000, --name=value, --name value). The options end at "--" or at the
// first argument that is not an option; "-" is not one. Long names cannot be
// abbreviated. The programs of skarnet.org do the same, but take the value of a long
// option after "=" alone.
//
// Errors have exit status 100.
func ParseOptions(args []string, options []Option) (rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		switch {
		case arg == "--":
			return args[1:], nil
		case len(arg) < 2 || arg[0] != '-':
			return args, nil
		case strings.HasPrefix(arg, "--"):
			args, err = long(args, options)
		default:
			args, err = short(args, options)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func long(args []string, options []Option) ([]string, error) {
	name, value, attached := strings.Cut(args[0][2:], "=")
	i := slices.IndexFunc(options, func(o Option) bool { return slices.Contains(o.Long, name) })
	if i < 0 {
		return nil, Fail(ExitUsage, "unknown option %q", args[0])
	}
	o, name := options[i], "--"+name
	switch {
	case o.Set == nil && attached:
		return args[1:], o.take(name, value)
	case o.Set == nil:
		return o.next(name, args)
	case attached:
		return nil, Fail(ExitUsage, "option %q takes no value", name)
	}
	o.Set()
	return args[1:], nil
}

func short(args []string, options []Option) ([]string, error) {
	arg := args[0]
	for at := 1; at < len(arg); at++ {
		name, value := "-"+arg[at:at+1], arg[at+1:]
		i := slices.IndexFunc(options, func(o Option) bool { return o.Short != 0 && o.Short == arg[at] })
		if i < 0 {
			return nil, Fail(ExitUsage, "unknown option %q", name)
		}
		switch o := options[i]; {
		case o.Set != nil:
			o.Set()
		case value != "":
			return args[1:], o.take(name, value)
		default:
			return o.next(name, args)
		}
	}
	return args[1:], nil
}

// next takes the value from the next argument.
func (o Option) next(name string, args []string) ([]string, error) {
	if len(args) < 2 || args[1] == "--" {
		return nil, Fail(ExitUsage, "option %q wants a value", name)
	}
	return args[2:], o.take(name, args[1])
}

func (o Option) take(name, value string) error {
	if err := o.Take(value); err != nil {
		return Fail(ExitUsage, "option %q: %w", name, err)
	}
	return nil
}

// Count returns a Take that accepts a decimal number from least, which is at least 0, to
// most.
func Count[N int | int64](into *N, least, most N) func(string) error {
	return func(value string) error {
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || n < uint64(least) || n > uint64(most) {
			return Fail(ExitUsage, "%q is not a number from %d to %d", value, least, most)
		}
		*into = N(n)
		return nil
	}
}

// Tunnel has the options that mxf-tlsc and mxf-ucspitlsc share with s6-tlsc and
// s6-ucspitlsc.
type Tunnel struct {
	CloseNotify        bool          // -S: say close_notify at the end of the program's data
	EnforceCloseNotify bool          // -J: an end without close_notify is an error
	ClientCertificate  bool          // -y: show $CERTFILE when asked for one
	Keep               bool          // -Z: leave the TLS settings in the environment
	Verify             bool          // --verify-cert, the default
	Verbosity          int           // -v
	HandshakeTimeout   time.Duration // -K; 0: none
	ServerName         string        // -k; "": none
	ReadFD, WriteFD    int           // -6, -7
}

const (
	maxDescriptor = 1<<31 - 1 // an int of C
	maxTimeout    = 1<<32 - 1 // milliseconds: an unsigned int of C, 49 days
	maxVerbosity  = 1<<31 - 1
)

// ParseTunnel reads these options, and returns what follows them as the program to run,
// which may be empty. Of two options that contradict each other the last one counts.
//
// Errors have exit status 100.
func ParseTunnel(args []string) (t Tunnel, program []string, err error) {
	t = Tunnel{Verify: true, Verbosity: 1, ReadFD: 6, WriteFD: 7}
	var milliseconds int64
	on := func(short byte, long string, to *bool) Option {
		return Option{Short: short, Long: []string{long}, Set: func() { *to = true }}
	}
	off := func(short byte, long string, to *bool) Option {
		return Option{Short: short, Long: []string{long}, Set: func() { *to = false }}
	}
	program, err = ParseOptions(args, []Option{
		on('S', "close-notify", &t.CloseNotify),
		off('s', "no-close-notify", &t.CloseNotify),
		on('J', "enforce-close-notify", &t.EnforceCloseNotify),
		off('j', "no-enforce-close-notify", &t.EnforceCloseNotify),
		on('y', "client-cert", &t.ClientCertificate),
		off('Y', "no-client-cert", &t.ClientCertificate),
		on('Z', "keep", &t.Keep),
		off('z', "no-keep", &t.Keep),
		on(0, "verify-cert", &t.Verify),
		off(0, "no-verify-cert", &t.Verify),
		{Short: 'v', Long: []string{"verbosity"}, Take: Count(&t.Verbosity, 0, maxVerbosity)},
		// s6-networking 2.8.0.1 calls it kimeout.
		{Short: 'K', Long: []string{"handshake-timeout", "kimeout"}, Take: Count(&milliseconds, 0, maxTimeout)},
		{Short: 'k', Long: []string{"servername"}, Take: func(v string) error { t.ServerName = v; return nil }},
		{Short: '6', Long: []string{"read-fd"}, Take: Count(&t.ReadFD, FirstFree, maxDescriptor)},
		{Short: '7', Long: []string{"write-fd"}, Take: Count(&t.WriteFD, FirstFree, maxDescriptor)},
	})
	t.HandshakeTimeout = time.Duration(milliseconds) * time.Millisecond
	if err == nil && t.ReadFD == t.WriteFD {
		err = Fail(ExitUsage, "the descriptors to read from and to write to are both %d", t.ReadFD)
	}
	if err != nil {
		return Tunnel{}, nil, err
	}
	return t, program, nil
}
