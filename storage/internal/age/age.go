// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package age tells how long ago a record was made, by time that is known to have
// passed while boards ran, and never by a wall clock. Within one boot that is boot
// time; over several a small file adds up how long each of them was seen to run. What
// nobody saw does not count: time without power, and what a boot ran after it was last
// looked at. So an age is never more than the true one.
package age

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
)

const (
	// Name is the name of the file in the spool's folder.
	Name = "boots"
	// maxBoots bounds the boots that are known, two months of a power cut a day; a
	// record of one before them is only known to be older than the present boot.
	maxBoots = 64
	// maxBytes is what a file of them may take: each line has at most 60 bytes.
	maxBytes = 8 << 10
	// maxMs bounds the times, in ms: 139 years, so that their sums fit into nanoseconds.
	maxMs = 1 << 42
)

// boot is one boot as far as it was seen.
type boot struct {
	id    uint64
	start int64 // ms that boards were seen to run before it, since the file began
	ran   int64 // ms it was seen to run
}

// Book is what is known of past boots. Its zero value knows none. It does no locking.
type Book struct {
	boots []boot // oldest first; the last one is the present one after See
}

var errDamaged = errors.New("the file of past boots is damaged")

// Load reads the file in dir; damage gives an empty book and an error that says so.
func Load(dir string) (Book, error) {
	f, err := os.OpenFile(filepath.Join(dir, Name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return Book{}, nil
	} else if err != nil {
		return Book{}, fmt.Errorf("past boots: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return Book{}, fmt.Errorf("past boots: %w", err)
	}
	b, ok := decode(string(text))
	if !ok {
		return Book{}, fmt.Errorf("%w: %s", errDamaged, f.Name())
	}
	return b, nil
}

// Save writes the file. noSync: it need not survive a power loss.
func (b *Book) Save(dir string, noSync bool) error {
	write := atomicfile.WriteFile
	if noSync {
		write = os.WriteFile
	}
	if err := write(filepath.Join(dir, Name), []byte(b.encode()), 0o600); err != nil {
		return fmt.Errorf("past boots: %w", err)
	}
	return nil
}

// encode gives a line for each boot, id in hex, start and time run in ms, and a last one
// with the CRC-32C of those.
func (b *Book) encode() string {
	var s strings.Builder
	for _, t := range b.boots {
		fmt.Fprintf(&s, "%016x %d %d\n", t.id, t.start, t.ran)
	}
	return s.String() + fmt.Sprintf("%08x\n", crc32.Checksum([]byte(s.String()), crc32.MakeTable(crc32.Castagnoli)))
}

func decode(text string) (b Book, ok bool) {
	lines := strings.SplitAfter(text, "\n")
	if n := len(lines) - 2; len(text) > maxBytes || n < 0 || n > maxBoots { // sum, and nothing behind it
		return Book{}, false
	}
	end := int64(0)
	for _, l := range lines[:len(lines)-2] {
		var t boot
		if _, err := fmt.Sscanf(l, "%x %d %d\n", &t.id, &t.start, &t.ran); err != nil ||
			t.start < end || t.ran < 0 || t.start > maxMs || t.ran > maxMs {
			return Book{}, false
		}
		end = t.start + t.ran
		b.boots = append(b.boots, t)
	}
	return b, b.encode() == text
}

// See notes that the present boot runs, and since when.
func (b *Book) See(now schema.Time) {
	ran := min(max(now.Mono/int64(time.Millisecond), 0), maxMs)
	start := int64(0)
	if n := len(b.boots); n > 0 {
		last := &b.boots[n-1]
		if last.id == now.Boot {
			last.ran = max(last.ran, ran)
			return
		}
		if start = last.start + last.ran; start > maxMs {
			*b, start = Book{}, 0
		}
	}
	if len(b.boots) == maxBoots {
		b.boots = append(b.boots[:0], b.boots[1:]...)
	}
	b.boots = append(b.boots, boot{now.Boot, start, ran})
}

// Age tells how long ago a record was made, at least, for one that was in this spool
// before now. The present boot must have been seen.
func (b *Book) Age(made, now schema.Time) time.Duration {
	if made.Boot == now.Boot {
		return max(0, time.Duration(now.Mono-max(made.Mono, 0)))
	}
	age := min(max(now.Mono, 0), 1<<62)
	for i := len(b.boots) - 2; i >= 0; i-- {
		if t := b.boots[i]; t.id == made.Boot {
			before := min(max(made.Mono/int64(time.Millisecond), 0), t.ran)
			age += (b.boots[len(b.boots)-1].start - t.start - before) * int64(time.Millisecond)
			break
		}
	}
	return time.Duration(age)
}
