package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// pack writes files to a compressed archive, in which they are all beneath one folder,
// sorted, root's, and of one time.
func pack(archive, folder string, when time.Time, files []file) error {
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	return errors.Join(packInto(f, folder, when, files), f.Close())
}

func packInto(w io.Writer, folder string, when time.Time, files []file) error {
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	for _, f := range sorted(files) {
		if err := add(archive, f.path, tar.Header{Name: folder + "/" + f.name, Mode: f.mode, ModTime: when}); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zip.Close())
}

func sorted(files []file) []file {
	return slices.SortedFunc(slices.Values(files), func(a, b file) int { return strings.Compare(a.name, b.name) })
}

func add(archive *tar.Writer, path string, header tar.Header) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	header.Typeflag, header.Size, header.Format = tar.TypeReg, int64(len(content)), tar.FormatUSTAR
	if err := archive.WriteHeader(&header); err != nil {
		return err
	}
	_, err = archive.Write(content)
	return err
}

// sums is the file that sha256sum -c reads.
const sums = "SHA256SUMS"

// writeSums writes the hashes of all files in a folder.
func writeSums(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, e := range entries {
		hash, err := sum(place(folder, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%s  %s\n", hash, e.Name())
	}
	return os.WriteFile(place(folder, sums), text.Bytes(), plain)
}

func sum(path string) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(content)), nil
}
