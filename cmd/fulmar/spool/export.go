// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/atomicfile"
	"fulmar/internal/cli"
	"fulmar/schema"
	"fulmar/storage/salvage"
)

// exporting is what is to be written out, and how.
type exporting struct {
	format, class string
	all           bool
	out           string
}

// export writes the records out. What can be read goes out whatever else is wrong;
// then it fails and says so.
func (x *exporting) export(f *source, dir string, stdout, stderr io.Writer) error {
	if x.format == "csv" && x.class == "" {
		x.class = schema.ClassMetric.String()
	}
	classes, err := classNamed(x.class)
	switch {
	case err != nil:
		return err
	case x.format != "csv" && x.format != "jsonl":
		return fmt.Errorf("%w: format %q, wants jsonl or csv", cli.ErrUsage, x.format)
	case x.format == "csv" && classes[0] != schema.ClassMetric:
		return fmt.Errorf("%w: csv is for metrics only; take --format jsonl for class %s", cli.ErrUsage, x.class)
	}
	s, err := f.open(dir, stderr)
	if err != nil {
		return err
	}
	sel := salvage.Select{Classes: classes, Settled: x.all, Progress: progress(stderr, "exported")}
	if x.out == "" {
		return exportTo(s, sel, x.format, stdout, stderr)
	}
	return toNewFile(x.out, func(w io.Writer) error { return exportTo(s, sel, x.format, w, stderr) })
}

// errPartly says that what was exported is right, and is not all.
var errPartly = errors.New("not all could be exported")

// writer writes records in one format.
type writer interface {
	record(r salvage.Record) error
	skipped() int // records that the format has no place for
	flush() error
}

func exportTo(s *salvage.Spool, sel salvage.Select, format string, to io.Writer, stderr io.Writer) error {
	b := bufio.NewWriterSize(to, 64<<10)
	var w writer = newJSONL(b)
	if format == "csv" {
		w = newCSV(b)
	}
	n := 0
	reports, err := s.Walk(sel, func(r salvage.Record) error {
		n++
		return w.record(r)
	})
	if err == nil {
		err = w.flush()
	}
	if err == nil {
		err = b.Flush()
	}
	if err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	what := "records that the fleet has not acknowledged"
	if sel.Settled {
		what = "records"
	}
	fmt.Fprintf(stderr, "fulmar: exported %d %s\n", n-w.skipped(), what)
	if k := w.skipped(); k > 0 {
		fmt.Fprintf(stderr, "fulmar: left out %d records that have no place in this format; take --format jsonl for them\n", k)
	}
	faults := append(spoolFaults(s), segmentFaults(reports)...)
	for i, p := range faults {
		if i == maxNamed {
			fmt.Fprintf(stderr, "fulmar: and %d more faults; fulmar spool verify names all\n", len(faults)-i)
			break
		}
		fmt.Fprintf(stderr, "fulmar: %s\n", p)
	}
	if len(faults) > 0 {
		return fault.New(fault.Partly, "%w: %s has %d faults, named above; what was exported is right", errPartly, s.Dir, len(faults))
	}
	return nil
}

// toNewFile writes a file that is there only when it is whole, and never over
// another.
func toNewFile(path string, fn func(io.Writer) error) error {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.Exists, "%s is there already; name another file or remove it", path)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already where all went well
	ferr := fn(tmp)
	if ferr != nil && !errors.Is(ferr, errPartly) {
		_ = tmp.Close()
		return ferr
	}
	err = errors.Join(tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), path) // unlike a rename, never over another file
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
			err = os.Rename(tmp.Name(), path) // FAT has no links
		}
	}
	if err == nil {
		err = atomicfile.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	return ferr
}

// progressEvery keeps the line readable.
const progressEvery = 200 * time.Millisecond

// progress shows how far the work is where standard error is a terminal, and is nil
// where it is not.
func progress(stderr io.Writer, done string) func(n, total int64) {
	f, ok := stderr.(*os.File)
	if !ok {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	var last time.Time
	return func(n, total int64) {
		if now := time.Now(); n == total || now.Sub(last) >= progressEvery {
			last = now
			fmt.Fprintf(f, "\r%s %d of %d MiB", done, n>>20, total>>20)
			if n == total {
				fmt.Fprint(f, "\r\x1b[K")
			}
		}
	}
}
