package control

import (
	"fmt"
	"io"
	"io/fs"
	"os"

	"nightmare.mail/mxf/control/regular"
)

// notForOthers are the rights that nobody may have at a file with a secret: others none at
// all, the group none to write. The group is that of the user who delivers.
const notForOthers fs.FileMode = 0o027

// maxSecretFile is how much of a file with a secret is read, in bytes. A private key in
// PEM has a few thousand.
const maxSecretFile = 64 << 10

// checkSecret refuses a file that others can read. mode is that of the open descriptor: a
// path may lead elsewhere by now. line names the file, and is 0 for the control file itself.
func (d dir) checkSecret(file string, line int, mode fs.FileMode) error {
	if mode&notForOthers == 0 {
		return nil
	}
	return d.malformed(file, line, fmt.Sprintf("expected a file that others cannot read (chmod 640), found mode %04o", mode.Perm()))
}

// openSecret opens a file with a secret that a line of a control file names.
func (d dir) openSecret(file string, line int, path string) (*os.File, error) {
	f, info, err := regular.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, d.unreadableAt(file, line, err)
	}
	if err := d.checkSecret(file, line, info.Mode()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readSecret returns the beginning of such a file: at most maxSecretFile bytes, and one
// more if there are more.
func (d dir) readSecret(file string, line int, path string) ([]byte, error) {
	f, err := d.openSecret(file, line, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return nil, d.unreadableAt(file, line, err)
	}
	return data, nil
}
