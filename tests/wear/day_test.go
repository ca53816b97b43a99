// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package wear_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/vault"
	"fulmar/tests/loopdisk"
)

const (
	perSec   = 360 // records, as of 12 cameras of 30 frames
	recBytes = 200
	length   = 35 * time.Second // some commits of the journal, which come each 5 s
	ackAfter = 100 * time.Millisecond
)

// BenchmarkDay makes 360 records of 200 B a second for 35 s, in the classes that have
// such rates, with a link that acknowledges after 100 ms and with none, and scales
// what was written to a day: bytes given to write(2), and those that the device got.
// The spool is encrypted and has the defaults of a board.
func BenchmarkDay(b *testing.B) {
	for _, c := range []schema.Class{schema.ClassMetric, schema.ClassEvent} {
		for _, online := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/online=%v", c, online), func(b *testing.B) {
				for b.Loop() {
					day(b, c, online)
				}
			})
		}
	}
}

func day(b *testing.B, c schema.Class, online bool) {
	d, err := loopdisk.New(b.TempDir())
	if err != nil {
		b.Skip(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			b.Error(err)
		}
	}()
	key, err := vault.OpenKeyFile(filepath.Join(d.Dir, "key"))
	if err != nil {
		b.Fatal(err)
	}
	s, err := storage.Open(storage.Config{Dir: filepath.Join(d.Dir, "spool"), Clock: schema.NewClock(1, 0), Holder: key})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	s.Online(online)
	run(b, s, c, 3*time.Second, online) // its first files are not a day's
	device, given := deviceBytes(b, d), givenBytes(b)
	began, before := time.Now(), s.Stats().Classes[c]
	made := run(b, s, c, length, online)
	took, after := time.Since(began).Seconds(), s.Stats().Classes[c]
	given, device = givenBytes(b)-given, deviceBytes(b, d)-device
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
	if err := s.Close(); err != nil {
		b.Error(err)
	}
	const gb = 1e9
	payload := float64(made * recBytes)
	b.ReportMetric(float64(made)/took, "rec/s")
	b.ReportMetric(float64(after.Commits-before.Commits)/took, "commits/s")
	b.ReportMetric(float64(given)/took*86400/gb, "GB/day-write(2)")
	b.ReportMetric(float64(device)/took*86400/gb, "GB/day-device")
	b.ReportMetric(payload/took*86400/gb, "GB/day-payload")
	b.ReportMetric(float64(device)/payload, "device-B/B")
	b.ReportMetric(0, "ns/op")
}

// run makes records for a while and, if there is a link, takes them; it gives how many
// were made.
func run(b *testing.B, s *storage.Spool, c schema.Class, length time.Duration, online bool) (made int) {
	ctx, cancel := context.WithTimeout(b.Context(), length)
	defer cancel()
	var wg sync.WaitGroup
	if online {
		wg.Go(func() { take(ctx, b, s, c) })
	}
	made = produce(ctx, func(payload []byte) {
		if _, err := s.Append(context.Background(), c, payload); err != nil {
			b.Error(err)
		}
	})
	wg.Wait()
	return made
}

// produce makes records until the context ends. A camera does not wait for the disk, so
// neither does this: each record has a goroutine, up to what the spool lets wait.
func produce(ctx context.Context, put func([]byte)) (made int) {
	var wg sync.WaitGroup
	rng := rand.NewChaCha8([32]byte{1})
	waiting := make(chan struct{}, 4096)
	for begin := time.Now(); ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
		for want := int(time.Since(begin).Seconds() * perSec); made < want; made++ {
			waiting <- struct{}{}
			payload := make([]byte, recBytes)
			_, _ = rng.Read(payload) // never fails
			wg.Go(func() {
				put(payload)
				<-waiting
			})
		}
	}
	wg.Wait()
	return made
}

// take reads what is there and acknowledges it a round trip later, as a link with
// one message under way does.
func take(ctx context.Context, b *testing.B, s *storage.Spool, c schema.Class) {
	for from := uint64(1); ; {
		recs, err := s.Read(c, from, schema.MaxRecords, schema.MaxPayload)
		if err != nil {
			b.Error(err)
			return
		}
		if len(recs) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-s.Wake():
			}
			continue
		}
		time.Sleep(ackAfter)
		from = recs[len(recs)-1].Seq + 1
		if err := s.Ack(c, recs[0].Epoch, recs[0].Seq, from-1); err != nil {
			b.Error(err)
			return
		}
	}
}

func deviceBytes(b *testing.B, d *loopdisk.Disk) int64 {
	n, err := d.Written()
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// givenBytes is what the process handed to write(2) for files. The runtime wakes its
// threads with writes of 8 bytes, which under load are more than a spool writes that
// is online: 8 bytes are taken off for each write there was. That takes off too much
// by one part in 512, for the spool writes pages of 4 KiB.
func givenBytes(b *testing.B) int64 {
	s, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Fatal(err)
	}
	var read, wrote, reads, writes int64
	if _, err := fmt.Sscanf(string(s), "rchar: %d\nwchar: %d\nsyscr: %d\nsyscw: %d", &read, &wrote, &reads, &writes); err != nil {
		b.Fatal(err)
	}
	return wrote - 8*writes
}
