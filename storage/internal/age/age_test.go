// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package age

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fulmar/schema"
)

func at(boot uint64, mono time.Duration) schema.Time {
	return schema.Time{Boot: boot, Mono: int64(mono), Wall: -int64(boot) << 40} // walls say nothing
}

func TestAge(t *testing.T) {
	t.Parallel()
	var b Book
	b.See(at(1, 0))
	b.See(at(1, 10*time.Hour))
	b.See(at(2, time.Minute))
	b.See(at(2, 5*time.Hour))
	now := at(3, 2*time.Hour)
	b.See(now)
	for _, c := range []struct {
		what string
		made schema.Time
		want time.Duration
	}{
		{"of this boot", at(3, time.Hour), time.Hour},
		{"of this boot, after now", at(3, 9*time.Hour), 0},
		{"of the boot before", at(2, time.Hour), 4*time.Hour + 2*time.Hour},
		{"of the boot before, after it was last seen", at(2, 7*time.Hour), 2 * time.Hour},
		{"of two boots before", at(1, time.Hour), 9*time.Hour + 5*time.Hour + 2*time.Hour},
		{"of a boot before its beginning", at(1, -time.Hour), 10*time.Hour + 5*time.Hour + 2*time.Hour},
		{"of a boot that nobody saw", at(9, 0), 2 * time.Hour},
	} {
		if got := b.Age(c.made, now); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

// TestNeverTooOld: random lives, looked at now and then, powered off in between, and
// with a file that is lost at times. The age is never more than the true one.
func TestNeverTooOld(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 20261126))
	type made struct {
		at    schema.Time
		world time.Duration
	}
	for range 100 {
		var b Book
		var all []made
		dir, world := t.TempDir(), time.Duration(0)
		for id := range uint64(1 + rng.IntN(12)) {
			world += time.Duration(rng.Int64N(int64(48 * time.Hour)))
			mono := time.Duration(0)
			for range rng.IntN(12) {
				step := time.Duration(rng.Int64N(int64(time.Hour)))
				mono, world = mono+step, world+step
				all = append(all, made{at(id+1, mono), world})
				now := at(id+1, mono)
				if rng.IntN(3) == 0 {
					b.See(now)
					if err := b.Save(dir, true); err != nil {
						t.Fatal(err)
					}
				}
				seen := b
				seen.boots = append([]boot(nil), b.boots...)
				seen.See(now)
				for _, m := range all {
					got, truth := seen.Age(m.at, now), world-m.world
					if got > truth+time.Millisecond*time.Duration(id+1) { // of rounding, for each boot
						t.Fatalf("a record of %v is taken for %v old", truth, got)
					}
					if m.at.Boot == now.Boot && got != truth {
						t.Fatalf("within one boot %v is taken for %v", truth, got)
					}
				}
			}
			if rng.IntN(10) == 0 {
				if err := os.Remove(filepath.Join(dir, Name)); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			var err error
			if b, err = Load(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestManyBoots(t *testing.T) {
	t.Parallel()
	var b Book
	for id := range uint64(200) {
		b.See(at(id, time.Hour))
	}
	now := at(199, time.Hour)
	if got := b.Age(at(136, 0), now); got != 64*time.Hour {
		t.Errorf("of the oldest that is known: %v, want 64h", got)
	}
	if got := b.Age(at(135, 0), now); got != time.Hour {
		t.Errorf("of one that is forgotten: %v, want the hour of this boot", got)
	}
	dir := t.TempDir()
	if err := b.Save(dir, false); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, Name))
	if err != nil || fi.Size() > maxBytes {
		t.Fatalf("%v, %v", fi.Size(), err)
	}
	c, err := Load(dir)
	if got := c.Age(at(136, 0), now); err != nil || got != 64*time.Hour {
		t.Errorf("after a start: %v, %v", got, err)
	}
}

// TestFormat pins the file, and that damage is found.
func TestFormat(t *testing.T) {
	t.Parallel()
	b := Book{boots: []boot{{0xabc, 0, 5}, {1 << 63, 7, 0}}}
	const want = "0000000000000abc 0 5\n8000000000000000 7 0\n034a1c2e\n"
	if got := b.encode(); got != want {
		t.Fatalf("%q", got)
	}
	if _, ok := decode(want); !ok {
		t.Error("it does not read")
	}
	for i := range len(want) {
		flipped := []byte(want)
		flipped[i] ^= 1
		for _, bad := range []string{want[:i], string(flipped), want + want[i:]} {
			if b, ok := decode(bad); ok && len(b.boots) > 0 {
				t.Errorf("%q reads as %v", bad, b.boots)
			}
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, Name), []byte(want[1:]), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := Load(dir); err == nil || len(b.boots) > 0 {
		t.Errorf("damage: %v, %v", b.boots, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add((&Book{boots: []boot{{1, 2, 3}, {4, 5, 6}}}).encode())
	f.Add("\n")
	f.Fuzz(func(t *testing.T, text string) {
		b, ok := decode(text)
		if !ok {
			return
		}
		if b.encode() != text || len(b.boots) > maxBoots {
			t.Errorf("%q reads as %v", text, b.boots)
		}
		for range 3 {
			b.See(schema.Time{Boot: 99, Mono: 1 << 62})
			if age := b.Age(schema.Time{Boot: 4, Mono: -1 << 62}, schema.Time{Boot: 99, Mono: 1}); age < 0 {
				t.Errorf("an age of %v", age)
			}
		}
	})
}
