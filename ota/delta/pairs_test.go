// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package delta_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/ota/delta"
	maker "fulmar/ota/delta/make"
)

var codecs = []string{delta.Zstd, delta.BSDiff, delta.ELF, delta.Words}

func section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

func target(t testing.TB, b []byte) delta.Target {
	t.Helper()
	s, err := delta.Sum(t.Context(), section(b))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustMake(t testing.TB, codec string, base, next []byte) *maker.Patch {
	t.Helper()
	p, err := maker.Make(t.Context(), codec, section(base), section(next))
	if err != nil {
		t.Fatalf("make %s: %v", codec, err)
	}
	return p
}

// apply returns what came out, also beside an error.
func apply(ctx context.Context, codec string, base, patch []byte, want delta.Target, lim delta.Limits) ([]byte, error) {
	var out bytes.Buffer
	err := delta.Apply(ctx, codec, section(base), section(patch), want, lim, &out)
	return out.Bytes(), err
}

// roundTrip makes and applies a patch and says how long it was.
func roundTrip(t *testing.T, codec string, base, next []byte) int {
	t.Helper()
	p := mustMake(t, codec, base, next)
	got, err := apply(t.Context(), p.Codec, base, p.Bytes, target(t, next), delta.Limits{})
	if err != nil {
		t.Fatalf("apply %s: %v", p.Codec, err)
	}
	if !bytes.Equal(got, next) {
		t.Fatalf("%s: another file came out, and no error", p.Codec)
	}
	info, err := delta.Peek(section(p.Bytes))
	if err != nil || info.Codec != p.Codec || info.Base != p.Base || p.Codec != delta.Zstd && info.Out != p.Out {
		t.Fatalf("peek says %+v, %v", info, err)
	}
	return len(p.Bytes)
}

const program = `package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
)

type reading struct{ Name string; Value float64 }

func main() {
	var rs []reading
	if err := json.NewDecoder(os.Stdin).Decode(&rs); err != nil {
		fmt.Fprintln(os.Stderr, "read:", err)
		os.Exit(1)
	}
	sort.Slice(rs, func(i, j int) bool { return rs[i].Value < rs[j].Value })
	for _, r := range rs { fmt.Println(r.Name, r.Value, kind(r)) }
}

//go:noinline
func kind(r reading) string { %s }
`

// goPair builds two versions of a small program, the second with a function that
// grew and a package more.
func goPair(t testing.TB, arch string) (base, next []byte) {
	t.Helper()
	build := func(body string, more ...string) []byte {
		dir := t.TempDir()
		src := fmt.Sprintf(program, body)
		for _, m := range more {
			src = strings.Replace(src, "import (", "import (\n"+m, 1)
		}
		for name, text := range map[string]string{"main.go": src, "go.mod": "module sensors\n\ngo 1.26\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		goBuild(t, dir, arch, ".", filepath.Join(dir, "out"))
		b, err := os.ReadFile(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return build(`return "plain"`),
		build(`if strings.HasPrefix(r.Name, "temp") { return strings.ToUpper(r.Name) + fmt.Sprint(r.Value*1.8+32) }; return "plain"`, `"strings"`)
}

func goBuild(t testing.TB, dir, arch, pkg, out string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out}, append(args, pkg)...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOWORK=off")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, b)
	}
}

func TestGoPrograms(t *testing.T) {
	for _, arch := range []string{"arm64", "amd64"} {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			base, next := goPair(t, arch)
			size := map[string]int{}
			for _, c := range codecs {
				size[c] = roundTrip(t, c, base, next)
			}
			size[maker.Auto] = roundTrip(t, maker.Auto, base, next)
			t.Logf("%d bytes: %v", len(next), size)
			if size[delta.ELF] > size[delta.BSDiff]*2/3 {
				t.Errorf("prediction saves too little: elf %d, bsdiff %d", size[delta.ELF], size[delta.BSDiff])
			}
			if size[delta.ELF] > size[delta.Zstd]/10 {
				t.Errorf("elf %d is more than a tenth of the whole file, %d", size[delta.ELF], size[delta.Zstd])
			}
			if size[maker.Auto] != size[delta.ELF] {
				t.Errorf("auto took %d, elf is %d", size[maker.Auto], size[delta.ELF])
			}
			if arch == "arm64" {
				back := roundTrip(t, delta.ELF, next, base)
				t.Logf("back: %d", back)
			}
		})
	}
}

// TestOwnProgram: the launcher of this repository, and as it would be with a line more.
func TestOwnProgram(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(root, "cmd/fulmar-launch/person.go")
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const line = `fmt.Fprintf(l.out, "no slot in %s\n", r.State)`
	if bytes.Count(src, []byte(line)) != 1 {
		t.Fatal("the line that the test changes is not there")
	}
	changed := filepath.Join(dir, "person.go")
	src = bytes.Replace(src, []byte(line), []byte(`for i := range r.State { fmt.Fprintf(l.err, "%d: %c\n", i, r.State[i]) }; `+line), 1)
	overlay := fmt.Sprintf(`{"Replace": {%q: %q}}`, file, changed)
	for name, b := range map[string][]byte{changed: src, filepath.Join(dir, "overlay.json"): []byte(overlay)} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	goBuild(t, root, "arm64", "./cmd/fulmar-launch", a)
	goBuild(t, root, "arm64", "./cmd/fulmar-launch", b, "-overlay", filepath.Join(dir, "overlay.json"), "-ldflags", "-s -w -X main.release=9.9.9-other")
	var files [2][]byte
	for i, name := range []string{a, b} {
		if files[i], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	full, elf := roundTrip(t, delta.Zstd, files[0], files[1]), roundTrip(t, maker.Auto, files[0], files[1])
	t.Logf("%d bytes: zstd %d, auto %d", len(files[1]), full, elf)
	if elf > full/10 {
		t.Errorf("patch %d is more than a tenth of the whole file, %d", elf, full)
	}
}

// weights are n gaussian numbers of a width in bytes: INT8, FP16 or FP32.
func weights(rng *rand.Rand, n, width int) []byte {
	out := make([]byte, 0, n*width)
	for range n {
		out = appendWeight(out, rng.NormFloat64()*0.05, width)
	}
	return out
}

func appendWeight(b []byte, v float64, width int) []byte {
	switch width {
	case 1:
		return append(b, byte(int8(max(-127, min(127, math.Round(v*600))))))
	case 2:
		return binary.LittleEndian.AppendUint16(b, half(v))
	}
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v)))
}

// half rounds toward zero to FP16; what is too small for it becomes zero.
func half(v float64) uint16 {
	b := math.Float32bits(float32(v))
	e := int(b>>23&0xff) - 127 + 15
	if e <= 0 {
		return uint16(b >> 16 & 0x8000)
	}
	return uint16(b>>16&0x8000) | uint16(e)<<10 | uint16(b>>13&0x3ff)
}

func fromHalf(h uint16) float64 {
	if h&0x7c00 == 0 {
		return 0
	}
	return float64(math.Float32frombits(uint32(h&0x8000)<<16 | (uint32(h>>10&31)-15+127)<<23 | uint32(h&0x3ff)<<13))
}

// tune changes each weight from begin on with probability p, by a part of the spread.
func tune(rng *rand.Rand, w []byte, width, begin int, p float64) []byte {
	out := append([]byte(nil), w[:begin*width]...)
	for i := begin * width; i < len(w); i += width {
		if rng.Float64() >= p {
			out = append(out, w[i:i+width]...)
			continue
		}
		var v float64
		switch width {
		case 1:
			v = float64(int8(w[i])) / 600
		case 2:
			v = fromHalf(binary.LittleEndian.Uint16(w[i:]))
		default:
			v = float64(math.Float32frombits(binary.LittleEndian.Uint32(w[i:])))
		}
		out = appendWeight(out, v+rng.NormFloat64()*0.0008, width)
	}
	return out
}

// TestWeights holds the words codec to its goals on synthetic weights behind a header
// of odd length, as tensors in an ONNX file have.
func TestWeights(t *testing.T) {
	const n = 300_000
	for _, c := range []struct {
		name         string
		width, begin int
		p            float64
		percent      int // of the whole file in zstd
	}{
		{"int8 head", 1, n * 95 / 100, 1, 5},
		{"int8 scattered", 1, 0, 0.05, 10},
		{"int8 all", 1, 0, 1, 25},
		{"fp16 head", 2, n * 95 / 100, 1, 5},
		{"fp16 scattered", 2, 0, 0.05, 12},
		{"fp16 all", 2, 0, 1, 70},
		{"fp32 head", 4, n * 95 / 100, 1, 5},
		{"fp32 scattered", 4, 0, 0.05, 15},
		{"fp32 all", 4, 0, 1, 80},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(7, uint64(c.width)))
			w := weights(rng, n, c.width)
			head := []byte("a header of odd length.")
			base := append(append([]byte(nil), head...), w...)
			next := append(append([]byte(nil), head...), tune(rng, w, c.width, c.begin, c.p)...)
			full, words := roundTrip(t, delta.Zstd, base, next), roundTrip(t, delta.Words, base, next)
			t.Logf("%d bytes, zstd %d, words %d, %.1f %%", len(next), full, words, 100*float64(words)/float64(full))
			if words*100 > full*c.percent {
				t.Errorf("more than %d %%", c.percent)
			}
		})
	}
}

// TestLargerHead: the last tensor grew, and all behind it moved.
func TestLargerHead(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, width := range []int{1, 2, 4} {
		body, tail := weights(rng, 100_000, width), weights(rng, 50_000, width)
		base := bytes.Join([][]byte{[]byte("head."), body, weights(rng, 5_000, width), tail}, nil)
		next := bytes.Join([][]byte{[]byte("header."), body, weights(rng, 6_001, width), tail}, nil)
		full, words := roundTrip(t, delta.Zstd, base, next), roundTrip(t, delta.Words, base, next)
		t.Logf("width %d: %d bytes, zstd %d, words %d", width, len(next), full, words)
	}
}
