package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A source is the files of a commit, outside of git.
type source struct {
	dir     string // where they are
	work    string // for what is built; nothing of it is released as it is
	files   []file
	version string
	commit  string
	time    time.Time // the commit's
}

// A file is something that goes into an archive or a package.
type file struct {
	name string // there, with slashes
	path string // here
	mode int64
}

// Modes of what is released. Those in git, and the umask, have no say but for x.
const (
	plain      = 0o644
	executable = 0o755
)

// name returns what all files of the release begin with.
func (s *source) name() string { return "mxf-" + s.version }

func place(folder, name string) string { return filepath.Join(folder, filepath.FromSlash(name)) }

// export has git write the files of HEAD into a folder of work. What is in no commit would
// not be released, so there must be nothing of it.
func export(ctx context.Context, root, work string) (*source, error) {
	changes, err := output(exec.CommandContext(ctx, "git", "-C", root, "status", "--porcelain"))
	if err != nil {
		return nil, err
	}
	if len(changes) > 0 {
		return nil, fmt.Errorf("these files are not as they are in the commit:\n%s", changes)
	}
	archive, err := output(exec.CommandContext(ctx, "git", "-C", root, "archive", "--format=tar", "HEAD"))
	if err != nil {
		return nil, err
	}
	s := &source{dir: filepath.Join(work, "source"), work: work}
	if err := s.unpack(tar.NewReader(bytes.NewReader(archive))); err != nil {
		return nil, err
	}
	return s, s.readStamp()
}

// output returns what a command prints. The error has what it complains about.
func output(cmd *exec.Cmd) ([]byte, error) {
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out.Bytes(), complaint.Bytes())
	}
	return out.Bytes(), nil
}

func (s *source) unpack(archive *tar.Reader) error {
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f := file{header.Name, place(s.dir, header.Name), plain}
		switch header.Typeflag {
		case tar.TypeXGlobalHeader, tar.TypeDir:
			continue
		case tar.TypeReg:
		default:
			return fmt.Errorf("%s is neither a file nor a folder", header.Name)
		}
		if header.Mode&0o100 != 0 {
			f.mode = executable
		}
		if err := write(f.path, os.FileMode(f.mode), archive); err != nil {
			return err
		}
		s.files = append(s.files, f)
	}
}

func write(path string, mode os.FileMode, from io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// stamp is the file that says which version this is; git archive has put the commit there.
const stamp = "cmd/internal/chain/stamp"

var stamped = regexp.MustCompile(`\A(\S+) ([0-9a-f]{40,}) (\d+)\n\z`)

func (s *source) readStamp() error {
	text, err := os.ReadFile(place(s.dir, stamp))
	if err != nil {
		return err
	}
	match := stamped.FindSubmatch(text)
	if match == nil {
		return fmt.Errorf("%s is %q, which is no version, commit and time", stamp, text)
	}
	seconds, err := strconv.ParseInt(string(match[3]), 10, 64)
	s.version, s.commit, s.time = string(match[1]), string(match[2]), time.Unix(seconds, 0).UTC()
	return err
}
