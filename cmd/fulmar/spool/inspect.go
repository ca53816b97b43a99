// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/cli"
	"fulmar/schema"
	"fulmar/storage/salvage"
	"fulmar/storage/vault"
)

// maxNamed bounds what is listed of one sort of fault; the rest is counted.
const maxNamed = 20

// inspect prints a table of the classes.
func (f *source) inspect(dir string, stdout, stderr io.Writer) error {
	s, err := f.open(dir, stderr)
	if err != nil {
		return err
	}
	show := progress(stderr, "read")
	reports, err := s.Walk(salvage.Select{Progress: show}, nil)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CLASS\tEPOCH\tRECORDS\tWAITING\tOLDEST\tNEWEST\tBYTES\tFILES\tKEY\tSTATE")
	for _, c := range s.Classes {
		t := total(&c, reports)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n",
			c.ID, epoch(c.Epoch), t.count(t.records), t.count(t.waiting), stamp(t.oldest), stamp(t.newest), t.bytes, t.files, t.keyNames(), t.state())
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	if s.Owner != "" {
		fmt.Fprintf(stdout, "board %s\n", s.Owner)
	}
	for _, k := range s.Keys {
		fmt.Fprintf(stdout, "key %s  made %s, held by %q, %s, %s\n", k.ID, stamp(k.Created), k.Kind, recoverable(k), opened(k))
	}
	faults := append(spoolFaults(s), segmentFaults(reports)...)
	for i, p := range faults {
		if i == maxNamed {
			fmt.Fprintf(stdout, "and %d more; fulmar spool verify names all\n", len(faults)-i)
			break
		}
		fmt.Fprintln(stdout, p)
	}
	if n := len(s.Foreign); n > 0 {
		fmt.Fprintf(stdout, "%d files are not the spool's and were left out: %s\n", n, fmt.Sprintf("%q", s.Foreign[:min(n, 5)]))
	}
	return nil
}

// classTotal adds up the reports of a class.
type classTotal struct {
	records, waiting, locked, lost uint64
	bytes                          int64
	files, broken                  int
	oldest, newest                 time.Time
	keys                           []string
	problems                       int
}

func total(c *salvage.Class, reports []salvage.Report) *classTotal {
	t := &classTotal{problems: len(c.Problems)}
	for i := range reports {
		r := &reports[i]
		if r.Class != c.ID {
			continue
		}
		t.files++
		t.bytes += r.Bytes
		t.records, t.waiting, t.locked = t.records+r.Records, t.waiting+r.Waiting, t.locked+r.Locked
		t.lost += r.Bad.Count + r.Missing.Count + r.Unknown.Count
		if r.Err != nil && !r.Unopened {
			t.broken++
		}
		if r.Records > 0 && (t.oldest.IsZero() || r.Oldest.Before(t.oldest)) {
			t.oldest = r.Oldest
		}
		if r.Newest.After(t.newest) {
			t.newest = r.Newest
		}
		if name := keyName(r); r.Epoch != 0 && !contains(t.keys, name) {
			t.keys = append(t.keys, name)
		}
	}
	return t
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func keyName(r *salvage.Report) string {
	if r.Key == 0 {
		return "plain"
	}
	return r.Key.String()
}

func (t *classTotal) keyNames() string {
	if len(t.keys) == 0 {
		return "-"
	}
	return strings.Join(t.keys, ",")
}

// count writes a number, and says where locked records are not in it.
func (t *classTotal) count(n uint64) string {
	if t.locked > 0 {
		return fmt.Sprintf("%d+%d locked", n, t.locked)
	}
	return fmt.Sprint(n)
}

func (t *classTotal) state() string {
	var parts []string
	if t.broken > 0 {
		parts = append(parts, fmt.Sprintf("%d files cannot be read", t.broken))
	}
	if t.lost > 0 {
		parts = append(parts, fmt.Sprintf("%d records damaged", t.lost))
	}
	if t.locked > 0 {
		parts = append(parts, "locked")
	}
	if t.problems > 0 {
		parts = append(parts, "see below")
	}
	if len(parts) == 0 {
		return "sound"
	}
	return strings.Join(parts, ", ")
}

func epoch(e uint64) string {
	if e == 0 {
		return "?"
	}
	return fmt.Sprintf("%016x", e)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func recoverable(k vault.Info) string {
	if k.Recovery == 0 {
		return "no recovery key opens it"
	}
	return fmt.Sprintf("recovery key %s opens it", k.Recovery)
}

func opened(k vault.Info) string {
	if k.Open {
		return "open"
	}
	return "not open"
}

// verify reads everything and fails where anything is wrong.
func (f *source) verify(dir string, stdout, stderr io.Writer) error {
	s, err := f.open(dir, stderr)
	if err != nil {
		return err
	}
	reports, err := s.Walk(salvage.Select{Progress: progress(stderr, "verified")}, nil)
	if err != nil {
		return err
	}
	faults := append(spoolFaults(s), segmentFaults(reports)...)
	for _, p := range faults {
		fmt.Fprintln(stdout, p)
	}
	var records, waiting uint64
	for i := range reports {
		records, waiting = records+reports[i].Records, waiting+reports[i].Waiting
	}
	fmt.Fprintf(stdout, "%d records in %d files are sound, %d of them wait for the fleet\n", records, len(reports), waiting)
	if len(faults) > 0 {
		return fault.New(fault.Faults, "%s: %d faults, see above; fulmar spool export takes out what is sound", s.Dir, len(faults))
	}
	return nil
}

func spoolFaults(s *salvage.Spool) []string {
	out := append([]string(nil), s.Problems...)
	for _, c := range s.Classes {
		for _, p := range c.Problems {
			out = append(out, fmt.Sprintf("%s: %s", c.ID, p))
		}
	}
	return out
}

func segmentFaults(reports []salvage.Report) (out []string) {
	for i := range reports {
		r := &reports[i]
		if r.Sound() {
			continue
		}
		var parts []string
		add := func(n salvage.Numbers, what string) {
			if n.Count > 0 {
				parts = append(parts, fmt.Sprintf("%d records %s: %s", n.Count, what, ranges(n)))
			}
		}
		switch {
		case r.Unopened:
			parts = append(parts, fmt.Sprintf("%d records are locked: %v; give --recovery-key FILE or --key FILE", r.Locked, r.Err))
		case r.Err != nil:
			parts = append(parts, r.Err.Error())
		}
		add(r.Bad, "do not match their checksum")
		add(r.Missing, "are missing")
		add(r.Unknown, "are whole, but this version of fulmar cannot decode them")
		if r.Unread > 0 {
			parts = append(parts, fmt.Sprintf("the disk did not give %d bytes", r.Unread))
		}
		out = append(out, fmt.Sprintf("%s: %s", r.Path, strings.Join(parts, "; ")))
	}
	return out
}

func ranges(n salvage.Numbers) string {
	var parts []string
	named := uint64(0)
	for _, r := range n.Ranges {
		named += r.Len()
		if r.First == r.Last {
			parts = append(parts, fmt.Sprint(r.First))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", r.First, r.Last))
		}
	}
	if named < n.Count {
		parts = append(parts, "...")
	}
	return strings.Join(parts, ", ")
}

// classNamed reads the --class flag; empty: all.
func classNamed(name string) ([]schema.Class, error) {
	if name == "" {
		return nil, nil
	}
	c, err := schema.ParseClass(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	return []schema.Class{c}, nil
}
