package regular

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrNotFolder means that what should be a folder is something else.
var ErrNotFolder = errors.New("it is not a folder")

// may asks access(2) for the right to search a folder and to write to it.
const may = 0o3

// CanMake returns why no regular file can be made at path and take the place of what is there,
// nil if one can. It writes nothing. The rights are those of the real user. The error is a
// *fs.PathError with the folder or with path.
func CanMake(path string) error {
	folder := filepath.Dir(path)
	info, err := os.Stat(folder)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return &fs.PathError{Op: "open", Path: folder, Err: ErrNotFolder}
	}
	if err := syscall.Access(folder, may); err != nil {
		return &fs.PathError{Op: "access", Path: folder, Err: err}
	}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0 {
		return not(path)
	}
	return nil
}
