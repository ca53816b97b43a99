// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"time"

	"fulmar/command"
)

const (
	// maxArchive bounds a diagnostics archive, in bytes: it goes over a mobile network with
	// everything else.
	maxArchive = 1 << 20
	// maxPart and maxParts bound what goes in, before it is packed.
	maxPart  = 2 << 20
	maxParts = 32
)

var errArchiveFull = errors.New("the archive is full")

// archive is a tar.gz that stays below maxArchive: a part that might go over it is cut,
// and the archive says so.
type archive struct {
	buf   bytes.Buffer
	zip   *gzip.Writer
	tar   *tar.Writer
	parts int
	notes []string
}

func newArchive() *archive {
	a := &archive{}
	a.zip = gzip.NewWriter(&a.buf)
	a.tar = tar.NewWriter(a.zip)
	return a
}

// add packs one part, the end of it where it is too long: of a log that is the newest.
func (a *archive) add(name string, data []byte) {
	if a.parts >= maxParts {
		a.notes = append(a.notes, name+": left out, too many parts")
		return
	}
	if len(data) > maxPart {
		a.notes = append(a.notes, fmt.Sprintf("%s: its last %d bytes of %d", name, maxPart, len(data)))
		data = data[len(data)-maxPart:]
	}
	// Packed it may be as large as it is: what is known to fit is what is left.
	_ = a.zip.Flush()
	if room := maxArchive - 8<<10 - a.buf.Len(); len(data) > room {
		if packed := size(data); packed > room {
			a.notes = append(a.notes, fmt.Sprintf("%s: left out, %d bytes packed do not fit", name, packed))
			return
		}
	}
	a.parts++
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err == nil {
		_, _ = a.tar.Write(data) // a buffer in memory takes all
	}
}

// size is how large data is when packed, about.
func size(data []byte) int {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(data)
	_ = z.Close()
	return b.Len() + 2<<10
}

func (a *archive) close() ([]byte, error) {
	if len(a.notes) > 0 {
		var text bytes.Buffer
		for _, n := range a.notes[:min(len(a.notes), maxParts)] {
			fmt.Fprintln(&text, n)
		}
		a.parts = 0
		a.add("cut.txt", text.Bytes())
	}
	err := errors.Join(a.tar.Close(), a.zip.Close())
	if a.buf.Len() > maxArchive {
		err = errors.Join(err, errArchiveFull)
	}
	return a.buf.Bytes(), err
}

func (s *Service) collectDiagnostics() builtin {
	return builtin{
		name: "collect-diagnostics", lane: command.Long, timeout: 2 * time.Minute,
		effect: "packs health, config, the newest log lines and the spool's state, at most 1 MiB, and brings it to the fleet",
		repeat: true, // a second archive takes the place of the first: it has the command's name
		do: func(ctx context.Context, c command.Call, _ command.Args) (any, error) {
			a := newArchive()
			s.cfg.Diagnose(ctx, func(name string, data []byte) {
				a.add(name, data)
				c.Progress(min(90, 10*a.parts), name)
			})
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			b, err := a.close()
			if err != nil {
				return nil, fmt.Errorf("pack diagnostics: %w", err)
			}
			name := "diagnostics-" + c.ID.String() + ".tar.gz"
			if err := s.cfg.Keep(ctx, name, "application/gzip", "diagnostics", b); err != nil {
				return nil, fmt.Errorf("keep diagnostics: %w", err)
			}
			return map[string]any{"file": name, "bytes": len(b), "parts": a.parts}, nil
		},
	}
}
