package lab

import (
	"errors"
	"os"
	"path/filepath"

	"nightmare.mail/mxf/tlsc/tlstest"
)

// A Home is the folder of a qmail host: control files, and the queue with its messages and locks.
type Home struct{ Dir string }

// NewHome makes dir a home with helohost "client.example", an empty ipme, so that
// loopback is not ourselves, an empty table of dead hosts, and nothing else. What
// is in dir already stays as it is.
func NewHome(dir string) (*Home, error) {
	h := &Home{dir}
	for _, sub := range []string{"control", "bin", "queue/lock", "queue/mess"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := create(h.Path("queue/lock/tcpto"), make([]byte, tcptoSize)); err != nil {
		return nil, err
	}
	if err := h.Default("helohost", HeloHost); err != nil {
		return nil, err
	}
	return h, h.Default("ipme")
}

// create writes a file unless it is there.
func create(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if os.IsExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// HeloHost is the name that the home of a lab calls itself.
const HeloHost = "client.example"

// tcptoSize is qmail's: 64 records of 16 bytes.
const tcptoSize = 1024

// Path returns a path beneath the home.
func (h *Home) Path(name string) string { return filepath.Join(h.Dir, name) }

// Set writes a control file; lines are ended with a newline.
func (h *Home) Set(name string, lines ...string) error {
	return os.WriteFile(h.Path("control/"+name), text(lines), 0o644)
}

// Default writes a control file unless it is there.
func (h *Home) Default(name string, lines ...string) error {
	return create(h.Path("control/"+name), text(lines))
}

func text(lines []string) []byte {
	var b []byte
	for _, line := range lines {
		b = append(append(b, line...), '\n')
	}
	return b
}

// Remove takes a control file away; one that is not there is none.
func (h *Home) Remove(name string) error {
	err := os.Remove(h.Path("control/" + name))
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// Trust makes authorities the trust anchors.
func (h *Home) Trust(authorities ...*tlstest.Party) error {
	var pem []byte
	for _, a := range authorities {
		pem = append(pem, a.PEM()...)
	}
	if err := os.WriteFile(h.Path("control/anchors.pem"), pem, 0o644); err != nil {
		return err
	}
	return h.Set("trustanchors", "control/anchors.pem")
}
