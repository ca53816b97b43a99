// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package powerloss_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"fulmar/schema"
	"fulmar/storage"
)

// found is what a spool holds after the loss, as its checker tells it.
type found struct {
	Err     string // Open or another call failed, or something does not fit
	Cursors []schema.Cursor
	Records []record
	Gaps    []schema.Gap
	Fresh   []record // one record of each class that was appended after it all
	Log     string   // what the spool said, where Err is set
	File    []byte   // the small file beside the spool
}

// record is one record without its payload, which is as it was written.
type record struct {
	Class   schema.Class
	Epoch   uint64
	Seq     uint64
	I       uint64
	Summary bool
}

// checker is the life of a checking process: one line asks, one line answers.
func checker() {
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for in.Scan() {
		var p, mnt string
		var fresh uint64
		if _, err := fmt.Sscanf(in.Text(), "%s %s %x", &p, &mnt, &fresh); err != nil {
			die(err)
		}
		if err := out.Encode(look(profileNamed(p), mnt, fresh)); err != nil {
			die(err)
		}
	}
}

// look opens the spool, tells what is there, appends one record to each class,
// closes, opens again and sees to it that nothing has changed but that.
func look(p profile, mnt string, fresh uint64) (f found) {
	p.noSync, p.tight = false, false // looking must not evict
	cfg := p.config(filepath.Join(mnt, "spool"))
	var said bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
	defer func() {
		if f.Err != "" {
			f.Log = said.String()
		}
	}()
	var err error
	if f.File, err = os.ReadFile(filepath.Join(mnt, "state")); err != nil && !os.IsNotExist(err) {
		return found{Err: err.Error()}
	}
	cfg.Clock = boot()
	s, err := storage.Open(cfg)
	if err != nil {
		f.Err = "open: " + err.Error()
		return f
	}
	f.Err = f.drain(s)
	f.Cursors = s.Cursors()
	if f.Err == "" {
		f.Err = f.goOn(s, fresh)
	}
	if err := s.Close(); err != nil && f.Err == "" {
		f.Err = "close: " + err.Error()
	}
	if f.Err != "" {
		return f
	}
	if s, err = storage.Open(cfg); err != nil {
		f.Err = "open again: " + err.Error()
		return f
	}
	defer s.Close()
	var again found
	if f.Err = again.drain(s); f.Err == "" {
		f.Err = f.compare(again)
	}
	return f
}

// drain reads all there is, the alarm class last: reading may write gaps.
func (f *found) drain(s *storage.Spool) string {
	for _, c := range []schema.Class{schema.ClassEvent, schema.ClassMetric, schema.ClassSnapshot, schema.ClassAlarm} {
		for from := uint64(0); ; {
			recs, err := s.Read(c, from, 500, 256<<10)
			if err != nil {
				return fmt.Sprintf("read %s from %d: %v", c, from, err)
			}
			if len(recs) == 0 {
				break
			}
			for _, r := range recs {
				if r.Seq < from {
					return fmt.Sprintf("read %s from %d gave %d", c, from, r.Seq)
				}
				from = r.Seq + 1
				kind, i, gap := identify(c, r.Payload)
				switch kind {
				case isWrong:
					return fmt.Sprintf("%s %d is wrong: %x", c, r.Seq, r.Payload)
				case isGap:
					f.Gaps = append(f.Gaps, gap)
				}
				f.Records = append(f.Records, record{c, r.Epoch, r.Seq, i, kind != isOurs})
			}
		}
	}
	return ""
}

func (f *found) goOn(s *storage.Spool, fresh uint64) string {
	for _, c := range schema.Classes() {
		seq, err := s.Append(context.Background(), c, payload(c, fresh+uint64(c)))
		if err != nil {
			return fmt.Sprintf("append to %s after the loss: %v", c, err)
		}
		f.Fresh = append(f.Fresh, record{Class: c, Seq: seq, I: fresh + uint64(c)})
	}
	if err := s.Flush(); err != nil {
		return "flush after the loss: " + err.Error()
	}
	return ""
}

// compare looks whether a second start finds what the first one found.
func (f *found) compare(again found) string {
	if !reflect.DeepEqual(f.Gaps, again.Gaps) {
		return fmt.Sprintf("gaps after another start: %v, were %v", again.Gaps, f.Gaps)
	}
	type key struct {
		c   schema.Class
		seq uint64
	}
	left := map[key]uint64{}
	for _, r := range again.Records {
		left[key{r.Class, r.Seq}] = r.I
	}
	for _, r := range slices.Concat(f.Records, f.Fresh) {
		k := key{r.Class, r.Seq}
		if i, ok := left[k]; !ok || i != r.I {
			return fmt.Sprintf("%s %d is not there after another start", r.Class, r.Seq)
		}
		delete(left, k)
	}
	for k := range left {
		return fmt.Sprintf("%d records more after another start, one is %s %d", len(left), k.c, k.seq)
	}
	return ""
}
