// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package delta_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"fulmar/ota/delta"
	"fulmar/ota/delta/internal/format"
	"fulmar/ota/delta/internal/predict"
)

// craft makes a patch by hand, with all sums right.
func craft(t testing.TB, codec byte, width int, sparse byte, base []byte, out delta.Target, streams ...[]byte) []byte {
	h := &format.Header{Codec: codec, Width: width, Sparse: sparse, Base: format.File(target(t, base)), Out: format.File(out)}
	packed := make([][]byte, len(streams))
	for i, s := range streams {
		if packed[i] = stored(s); len(s) > 1<<20 { // a bomb
			packed[i] = frame(s)
		}
	}
	return h.Encode(packed)
}

// stored is a zstd frame that compresses nothing (RFC 8878, 3.1.1): made in no time.
func stored(b []byte) []byte {
	out := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 9 << 3} // a window of 512 KiB
	for first := true; first || len(b) > 0; first = false {
		n := min(len(b), 128<<10)
		head := n << 3
		if n == len(b) {
			head |= 1 // the last block
		}
		out = append(append(out, byte(head), byte(head>>8), byte(head>>16)), b[:n]...)
		b = b[n:]
	}
	return out
}

func uvarints(v ...uint64) (b []byte) {
	for _, x := range v {
		b = binary.AppendUvarint(b, x)
	}
	return b
}

// TestHostile: patches that a person made, with their sums right.
func TestHostile(t *testing.T) {
	t.Parallel()
	base := bytes.Repeat([]byte("base"), 100)
	out := delta.Target{Size: 1000}
	zeros := make([]byte, 5000)
	over := binary.AppendUvarint(nil, 1)
	over = append(over, bytes.Repeat([]byte{0xff}, 12)...)
	step := func(n, extra uint64, step int64) []byte {
		return binary.AppendVarint(uvarints(1, n, extra), step)
	}
	for name, c := range map[string]struct {
		control, extra, plane []byte
		want                  error
	}{
		"no control":                {nil, zeros, zeros, delta.ErrPatch},
		"count alone":               {uvarints(3), zeros, zeros, delta.ErrPatch},
		"a number too long":         {over, zeros, zeros, delta.ErrPatch},
		"copies without end":        {uvarints(math.MaxUint64), zeros, zeros, delta.ErrLimit},
		"more copies than memory":   {uvarints(1 << 24), zeros, zeros, delta.ErrLimit},
		"an empty copy":             {uvarints(2, 0, 0, 0, 400, 600, 0), zeros[:600], zeros[:400], delta.ErrPatch},
		"longer than wanted":        {step(400, 601, 0), zeros[:601], zeros[:400], delta.ErrPatch},
		"length overflows":          {step(math.MaxUint64, 1001, 0), zeros, zeros, delta.ErrPatch},
		"extra that wraps round":    {uvarints(2, 400, 1<<32+600, 0, 0, math.MaxUint64-1<<32+1, 0), zeros[:600], zeros[:400], delta.ErrPatch},
		"extra overflows":           {step(400, math.MaxUint64, 0), zeros, zeros, delta.ErrPatch},
		"shorter than wanted":       {step(400, 599, 0), zeros[:599], zeros[:400], delta.ErrPatch},
		"before the base":           {step(400, 600, -1), zeros[:600], zeros[:400], delta.ErrPatch},
		"behind the base":           {step(400, 600, 1), zeros[:600], zeros[:400], delta.ErrPatch},
		"far behind the base":       {step(400, 600, math.MaxInt64), zeros, zeros, delta.ErrPatch},
		"far before the base":       {step(400, 600, math.MinInt64), zeros, zeros, delta.ErrPatch},
		"more control":              {append(step(400, 600, 0), 0), zeros[:600], zeros[:400], delta.ErrPatch},
		"too little extra":          {step(400, 600, 0), zeros[:599], zeros[:400], delta.ErrPatch},
		"too much extra":            {step(400, 600, 0), zeros[:601], zeros[:400], delta.ErrPatch},
		"too few differences":       {step(400, 600, 0), zeros[:600], zeros[:399], delta.ErrPatch},
		"too many differences":      {step(400, 600, 0), zeros[:600], zeros[:401], delta.ErrPatch},
		"all right but what it is":  {step(400, 600, 0), zeros[:600], zeros[:400], delta.ErrMismatch},
		"a bomb in the differences": {step(400, 600, 0), zeros[:600], make([]byte, 64<<20), delta.ErrPatch},
	} {
		for _, codec := range []byte{format.BSDiff, format.Words, format.ELF} {
			control := c.control
			if codec == format.ELF {
				l := (&predict.Layout{Machine: predict.ARM64}).Append(nil)
				control = append(append(l, l...), control...)
			}
			p := craft(t, codec, 1, 0, base, out, control, c.extra, c.plane)
			got, err := apply(t.Context(), []string{"", delta.BSDiff, delta.ELF, delta.Words}[codec], base, p, out, delta.Limits{})
			if !errors.Is(err, c.want) || len(got) > 1000 {
				t.Errorf("%s, codec %d: %d bytes, %v", name, codec, len(got), err)
			}
		}
	}
}

// TestHostileSparse: gaps and values that do not fit each other or the output.
func TestHostileSparse(t *testing.T) {
	t.Parallel()
	base := make([]byte, 1000)
	want := make([]byte, 1000)
	want[10], want[999] = 1, 2
	out := target(t, want)
	control := format.AppendOps(nil, []format.Op{{Len: 1000}})
	for name, c := range map[string]struct {
		gaps, values []byte
		want         error
	}{
		"right":             {uvarints(10, 988), []byte{1, 2}, nil},
		"a value missing":   {uvarints(10, 988), []byte{1}, delta.ErrPatch},
		"a value more":      {uvarints(10, 988), []byte{1, 2, 3}, delta.ErrPatch},
		"behind the end":    {uvarints(10, 988, 0), []byte{1, 2, 3}, delta.ErrPatch},
		"a gap more":        {uvarints(10, 988, 5), []byte{1, 2}, delta.ErrPatch},
		"far behind it":     {uvarints(10, 988, math.MaxUint64), []byte{1, 2, 3}, delta.ErrPatch},
		"a gap too long":    {append(uvarints(10), bytes.Repeat([]byte{0xff}, 11)...), []byte{1, 2}, delta.ErrPatch},
		"a gap cut short":   {append(uvarints(10), 0x80), []byte{1, 2}, delta.ErrPatch},
		"a gap of one less": {uvarints(10, 987), []byte{1, 2}, delta.ErrMismatch},
	} {
		p := craft(t, format.BSDiff, 1, 1, base, out, control, nil, c.gaps, c.values)
		got, err := apply(t.Context(), delta.BSDiff, base, p, out, delta.Limits{})
		if !errors.Is(err, c.want) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHostilePlanes: a plane that is sparse and is not there.
func TestHostilePlanes(t *testing.T) {
	t.Parallel()
	base := make([]byte, 1000)
	out := target(t, base)
	control := format.AppendOps(nil, []format.Op{{Len: 1000}})
	p := craft(t, format.BSDiff, 1, 2, base, out, control, nil, base, nil)
	if _, err := apply(t.Context(), delta.BSDiff, base, p, out, delta.Limits{}); !errors.Is(err, delta.ErrPatch) {
		t.Error(err)
	}
}

func TestHostileHeader(t *testing.T) {
	t.Parallel()
	base, next, p := example(t, delta.Words)
	for at, values := range map[int][]byte{4: {0, 2, 255}, 5: {0, 4, 255}, 6: {0, 3, 5, 8, 255}, 7: {0x10, 0x80, 0xff}, 15: {0x80}, 55: {0x80}, 99: {0x80, 0x7f}, 95: {255}} {
		for _, v := range values {
			b := append([]byte(nil), p.Bytes...)
			b[at] = v
			if _, err := apply(t.Context(), delta.Words, base, mend(b), target(t, next), delta.Limits{}); !oneOf(err, delta.ErrPatch, delta.ErrMismatch, delta.ErrBase) {
				t.Errorf("byte %d = %d: %v", at, v, err)
			}
			if info, err := delta.Peek(section(b)); !errors.Is(err, delta.ErrPatch) {
				t.Errorf("peek, byte %d = %d: %+v, %v", at, v, info, err)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	zeros := make([]byte, 32<<20)
	bomb := frame(zeros)
	small := delta.Target{Size: 1 << 20}
	// A patch longer than its output could be.
	if _, err := apply(t.Context(), delta.Zstd, nil, make([]byte, 200<<10), delta.Target{Size: 1000}, delta.Limits{}); !errors.Is(err, delta.ErrLimit) {
		t.Errorf("a long patch: %v", err)
	}
	if got, err := apply(t.Context(), delta.Zstd, nil, bomb, small, delta.Limits{}); !errors.Is(err, delta.ErrMismatch) || len(got) > 1<<20 {
		t.Errorf("a bomb: %d bytes, %v", len(got), err)
	}
	if _, err := apply(t.Context(), delta.Zstd, nil, bomb, target(t, zeros), delta.Limits{Size: 1 << 20}); !errors.Is(err, delta.ErrLimit) {
		t.Errorf("more than may be: %v", err)
	}
	wide := frame(noise(rand.New(rand.NewPCG(1, 1)), 2<<20), zstd.WithWindowSize(16<<20), zstd.WithSingleSegment(false))
	wide[5] = 0xff // a window of 3.75 TiB, if there is a descriptor of it
	if _, err := apply(t.Context(), delta.Zstd, nil, wide, delta.Target{Size: 2 << 20}, delta.Limits{}); !oneOf(err, delta.ErrLimit, delta.ErrPatch) {
		t.Errorf("a wide window: %v", err)
	}
	// 10 MB in one segment is a window of as much.
	single := frame(noise(rand.New(rand.NewPCG(1, 1)), 10<<20), zstd.WithSingleSegment(true))
	if _, err := apply(t.Context(), delta.Zstd, nil, single, delta.Target{Size: 10 << 20}, delta.Limits{}); !errors.Is(err, delta.ErrLimit) {
		t.Errorf("a segment of 10 MB: %v", err)
	}
	base, next, p := example(t, delta.ELF)
	if _, err := apply(t.Context(), delta.ELF, base, p.Bytes, target(t, next), delta.Limits{Memory: 1 << 20}); !errors.Is(err, delta.ErrLimit) {
		t.Errorf("1 MiB for elf: %v", err)
	}
	if _, err := apply(t.Context(), delta.Zstd, nil, bomb, small, delta.Limits{Memory: 1000}); !errors.Is(err, delta.ErrLimit) {
		t.Errorf("1000 bytes for zstd: %v", err)
	}
	if _, err := apply(t.Context(), delta.ELF, base, p.Bytes, target(t, next), delta.Limits{Memory: 6 << 20}); err != nil {
		t.Errorf("6 MiB for elf: %v", err)
	}
}

// maxRSS is what the process may take that applies a patch of 15 MB (DESIGN 9).
const maxRSS = 32 << 20

// TestMain applies a patch and tells its own memory, if asked by TestMemory.
func TestMain(m *testing.M) {
	if a := os.Getenv("FULMAR_DELTA_APPLY"); a != "" {
		os.Exit(child(strings.Split(a, "|")))
	}
	os.Exit(m.Run())
}

func child(a []string) int {
	open := func(name string) *io.SectionReader {
		f, err := os.Open(name)
		if err != nil {
			panic(err)
		}
		st, err := f.Stat()
		if err != nil {
			panic(err)
		}
		return io.NewSectionReader(f, 0, st.Size())
	}
	patch := open(a[2])
	info, err := delta.Peek(patch)
	if err != nil {
		panic(err)
	}
	out, err := os.Create(a[3])
	if err != nil {
		panic(err)
	}
	size, _ := strconv.ParseInt(a[4], 10, 64)
	want := delta.Target{Size: size}
	if _, err := hex.Decode(want.SHA256[:], []byte(a[5])); err != nil {
		panic(err)
	}
	if err := delta.Apply(context.Background(), a[0], open(a[1]), patch, want, delta.Limits{}, out); err != nil && (a[6] != "hostile" || !errors.Is(err, delta.ErrMismatch)) {
		os.Stderr.WriteString(err.Error() + " " + info.Codec + "\n")
		return 1
	}
	status, _ := os.ReadFile("/proc/self/status")
	os.Stdout.Write(status)
	return 0
}

func TestMemory(t *testing.T) {
	if raceOn {
		t.Skip("the race detector takes several times the memory")
	}
	tool, err := exec.LookPath("go")
	if err == nil {
		tool, err = filepath.EvalSymlinks(tool)
	}
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.ReadFile(tool) // a real program of about the right size
	if err != nil {
		t.Fatal(err)
	}
	for len(base) < 15e6 {
		base = append(base, base[:min(len(base), 15e6-len(base))]...)
	}
	rng := rand.New(rand.NewPCG(9, 9))
	// Headers and the names of sections, at the ends, stay: it is to remain a program.
	const mb, more = 1 << 20, 40_000
	next := append(append([]byte(nil), base[:5*mb]...), noise(rng, more)...)
	next = append(append(next, base[5*mb:len(base)-mb-more]...), base[len(base)-mb:]...)
	for range 3000 {
		next[mb+rng.IntN(len(next)-2*mb)] += byte(rng.IntN(256))
	}
	words := tune(rng, base[:len(base)/4*4], 4, 0, 0.3)
	for _, c := range []struct {
		codec string
		next  []byte
	}{{delta.Zstd, next}, {delta.BSDiff, next}, {delta.ELF, next}, {delta.Words, words}} {
		p := mustMake(t, c.codec, base, c.next)
		rss, cpu := inChild(t, c.codec, base, p.Bytes, target(t, c.next), "")
		t.Logf("%s: %d bytes from a patch of %d: %.1f MB RSS, %.2f s CPU", c.codec, len(c.next), len(p.Bytes), float64(rss)/1e6, cpu)
		if rss > maxRSS {
			t.Errorf("%s: %d bytes of memory, at most %d", c.codec, rss, maxRSS)
		}
		if cpu > 2 {
			t.Errorf("%s: %.2f s, at most 2", c.codec, cpu)
		}
	}
	p, want := worst(t, base)
	rss, cpu := inChild(t, delta.Words, base, p, want, "hostile")
	t.Logf("hostile: a patch of %d bytes: %.1f MB RSS, %.2f s CPU", len(p), float64(rss)/1e6, cpu)
	if rss > maxRSS {
		t.Errorf("hostile: %d bytes of memory, at most %d", rss, maxRSS)
	}
}

// worst is a patch that opens as many streams as can be, with as much to remember and
// as many copies as may be.
func worst(t *testing.T, base []byte) ([]byte, delta.Target) {
	rng := rand.New(rand.NewPCG(4, 4))
	ops := make([]format.Op, 140_000)
	for i := range ops {
		ops[i] = format.Op{Old: rng.Uint32N(15e6 - 100), Len: 40, Extra: 4}
	}
	out := delta.Target{Size: int64(44 * len(ops))}
	streams := [][]byte{frame(format.AppendOps(nil, ops)), frame(noise(rng, 4*len(ops)))}
	for range 4 {
		var gaps []byte
		for range 10 * len(ops) { // 1.4 MB each, more than the window
			gaps = append(gaps, 0)
		}
		streams = append(streams, frame(gaps), frame(noise(rng, 10*len(ops))))
	}
	h := &format.Header{Codec: format.Words, Width: 4, Sparse: 15, Base: format.File(target(t, base)), Out: format.File(out)}
	return h.Encode(streams), out
}

// inChild applies a patch in a process of its own and says what that took.
func inChild(t *testing.T, codec string, base, patch []byte, want delta.Target, mode string) (rss int64, cpu float64) {
	t.Helper()
	dir := t.TempDir()
	for name, b := range map[string][]byte{"base": base, "patch": patch} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FULMAR_DELTA_APPLY="+strings.Join([]string{codec, filepath.Join(dir, "base"), filepath.Join(dir, "patch"), filepath.Join(dir, "out"), strconv.FormatInt(want.Size, 10), hex.EncodeToString(want.SHA256[:]), mode}, "|"))
	out, err := cmd.Output()
	if err != nil {
		var e *exec.ExitError
		if errors.As(err, &e) {
			t.Fatalf("%v: %s", err, e.Stderr)
		}
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			rss = kb << 10
		}
	}
	if rss == 0 {
		t.Fatal("no VmHWM")
	}
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return rss, float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}
