// Package target lists the systems and processors that mxf is released for, with the
// settings of the go command that make the same bytes of the same source.
package target

import "strings"

// A Target is a system and a processor.
type Target struct {
	OS   string // as in $GOOS
	Arch string // as in $GOARCH
	// Level is an assignment that says which processors of the kind are enough; empty
	// where Go knows one kind alone.
	Level string
	// Package is the processor in the words of nfpm; empty: there are no packages.
	Package string
}

// All are the targets of a release. Each is the oldest processor of its kind that Go can
// serve, so that one archive is enough for all.
var All = []Target{
	{"linux", "amd64", "GOAMD64=v1", "amd64"},
	{"linux", "386", "GO386=sse2", "386"},
	{"linux", "arm64", "GOARM64=v8.0", "arm64"},
	{"linux", "arm", "GOARM=7", "arm7"},
	{"linux", "riscv64", "GORISCV64=rva20u64", "riscv64"},
	{"linux", "ppc64le", "GOPPC64=power8", "ppc64le"},
	{"linux", "s390x", "", "s390x"},
	{"linux", "mips", "GOMIPS=softfloat", "mips"}, // routers have no floating point
	{"linux", "mipsle", "GOMIPS=softfloat", "mipsle"},
	{"freebsd", "amd64", "GOAMD64=v1", ""},
	{"freebsd", "arm64", "GOARM64=v8.0", ""},
	{"openbsd", "amd64", "GOAMD64=v1", ""},
	{"openbsd", "arm64", "GOARM64=v8.0", ""},
	{"netbsd", "amd64", "GOAMD64=v1", ""},
	{"netbsd", "arm64", "GOARM64=v8.0", ""},
	{"darwin", "amd64", "GOAMD64=v1", ""},
	{"darwin", "arm64", "GOARM64=v8.0", ""},
}

// Named returns the target that String calls name.
func Named(name string) (t Target, known bool) {
	for _, t := range All {
		if t.String() == name {
			return t, true
		}
	}
	return Target{}, false
}

// String returns the name of a target in file names: linux-amd64, linux-armv7.
func (t Target) String() string {
	arch := t.Arch
	if number, ok := strings.CutPrefix(t.Level, "GOARM="); ok {
		arch += "v" + number
	}
	return t.OS + "-" + arch
}

// Environ returns what the go command has to be told, as assignments. They outdo whatever
// stands before them.
func (t Target) Environ() []string {
	environ := []string{"CGO_ENABLED=0", "GOOS=" + t.OS, "GOARCH=" + t.Arch,
		"GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=", "GOFIPS140=off"}
	if t.Level != "" {
		environ = append(environ, t.Level)
	}
	return environ
}
