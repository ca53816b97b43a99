// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"encoding/hex"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/golden anew; what boards in the field speak must not change")

var testTime = Time{Boot: 0xfedcba9876543210, Mono: 90_061_000_000_000, Wall: 1_767_225_600_123}

// vector is one value of a wire type and the name of its pinned encoding.
type vector struct {
	name  string
	value any
	blank func() any
}

func of[T any]() any { return new(T) }

func vectors() []vector {
	sum := [32]byte{}
	for i := range sum {
		sum[i] = byte(i * 7)
	}
	record := func(name string, r Record) vector {
		r.Time = testTime
		return vector{"record-" + name, &r, of[Record]}
	}
	samples := func(s Samples) Record { return Record{Kind: KindSamples, Samples: &s} }
	event := Event{
		Source: "dock/cam0", Model: "parcels@1", Frame: 1 << 40, Width: 640, Height: 384,
		Boxes: []Box{
			{Class: 1, Score: 0.8125, X0: 10.5, Y0: 20.25, X1: 110.75, Y1: 90, Match: MatchTrue},
			{Class: 65535, Score: 0.1, X0: -3, Y0: 0, X1: 639.9, Y1: 384, Match: MatchFalse},
		},
		Truth:  []Box{{Class: 2, Score: 1, X0: 1, Y0: 2, X1: 3, Y1: 4, Match: MatchMissed}},
		Labels: map[uint16]string{1: "parcel", 2: "torn", 65535: "größe"}, Snapshot: "cam0-000001.jpg",
		LatencyUs: 8123, Engine: "onnxruntime-cpu/int8",
	}
	payload := []byte{0xa1, 0x01, 0x01}
	return []vector{
		record("samples", samples(Samples{
			Series: []string{"cpu.load_percent", "thermal.cpu_celsius", "thermal.gpu_celsius"},
			Value:  []float64{12.5, 1.0 / 3, 0}, Quality: []Quality{QualityGood, QualityStale, QualityOffline},
		})),
		record("samples-summary", samples(Samples{
			Series: []string{"cpu.load_percent", "thermal.gpu_celsius"}, Value: []float64{12.5, 0}, Quality: []Quality{QualityGood, QualityOffline},
			Over: &Over{SpanMs: 60_000, Min: []float64{1, 0}, Max: []float64{99.5, 0}, Count: []uint32{60, 0}},
		})),
		record("samples-good", samples(Samples{Series: []string{"memory.used_bytes"}, Value: []float64{1 << 53}})),
		record("event", Record{Kind: KindEvent, Event: &event}),
		record("event-bare", Record{Kind: KindEvent, Event: &Event{Source: "rule1", Boxes: []Box{}}}),
		record("gap", Record{Kind: KindGap, Gap: &Gap{
			Class: ClassMetric, Epoch: math.MaxUint64, First: 7, Last: 1 << 33, Reason: ReasonQuota, FromWall: 1, ToWall: 1_767_225_600_000,
		}}),
		// The fleet's own reasons: in its books, and the last ones given out.
		record("gap-unreadable", Record{Kind: KindGap, Gap: &Gap{Class: ClassEvent, Epoch: 1, First: 1, Last: 2, Reason: ReasonUnreadable}}),
		record("gap-freed", Record{Kind: KindGap, Gap: &Gap{Class: ClassEvent, Epoch: 1, First: 1, Last: 2, Reason: ReasonFreed}}),
		record("gap-expired", Record{Kind: KindGap, Gap: &Gap{Class: ClassMetric, Epoch: 1, First: 1, Last: 2, Reason: ReasonExpired, FromWall: 1}}),
		record("snapshot", Record{Kind: KindSnapshot, Snapshot: &Snapshot{
			Name: "cam0-000001.jpg", Size: 48_213, SHA256: sum, Media: "image/jpeg", Source: "cam0", Frame: 9,
		}}),
		record("report", Record{Kind: KindReport, Report: &Report{
			Subject: "camera/cam0", State: "ok", Severity: SeverityWarn, Text: "cam0 gives frames again after 3 s",
		}}),
		record("anchor", Record{Kind: KindAnchor, Anchor: &Anchor{Old: -90_061_000, New: 1_767_135_539_123, Synced: true}}),
		record("anchor-start", Record{Kind: KindAnchor, Anchor: &Anchor{Old: -1, New: -1, Start: true}}),
		{"message", &Message{
			V: 1, Board: "dock-1", Class: ClassSnapshot, Epoch: 0x0123456789abcdef, Trace: [16]byte(sum[:16]), Replay: true,
			Sent: testTime, Records: []SeqRecord{{Seq: 1, Payload: payload}, {Seq: 1 << 34, Payload: payload}},
		}, of[Message]},
		{"chunk", &Chunk{V: 1, Offset: 2 * MaxChunk, Total: 2*MaxChunk + 5, Data: []byte("bytes")}, of[Chunk]},
		{"presence", &Presence{V: 1, Online: true, Boot: testTime.Boot, Conn: 3_600_123}, of[Presence]},
		{"presence-will", &Presence{V: 1, Boot: testTime.Boot, Conn: 3_600_123}, of[Presence]},
		{"hello", &Hello{
			V: 1, Board: "dock-1", Release: "0.3.1", Conn: 3_600_123, Now: testTime,
			Cursors: []Cursor{{Class: ClassAlarm, Epoch: 1, Acked: 0, Last: 0}, {Class: ClassMetric, Epoch: math.MaxUint64, Acked: 10, Last: 1 << 40}},
			Facts:   map[string]string{"model": "NVIDIA Jetson AGX Orin", "os": "Ubuntu 22.04", "arch": "arm64"},
		}, of[Hello]},
		{"hello-ack", &HelloAck{V: 1, Conn: 3_600_123, Mode: AckFleet, Wall: 1_767_225_600_123, RetryAfterMs: 1500, ReconnectMs: 30_000}, of[HelloAck]},
		{"hello-ack-rate", &HelloAck{V: 1, Conn: 3_600_123, Wall: 1_767_225_600_123, Rate: 64 << 10}, of[HelloAck]},
		{"hello-ack-attest", &HelloAck{V: 1, Conn: 3_600_123, Wall: 1_767_225_600_123, Attest: bytes.Repeat([]byte{7}, 32)}, of[HelloAck]},
		{"attestation", &Attestation{
			V: 1, Nonce: bytes.Repeat([]byte{7}, 32), Report: []byte{0xa1, 1, 1}, Attested: []byte{0xff, 'T', 'C', 'G'}, Signature: []byte{0, 0x18},
			PCRs: slices.Repeat([][]byte{bytes.Repeat([]byte{9}, 32)}, 16),
		}, of[Attestation]},
		{"attest-report", &AttestReport{
			V: 1, Release: "1.4.0", Program: bytes.Repeat([]byte{1}, 32), Models: map[string][]byte{"parcels": bytes.Repeat([]byte{2}, 32)},
			Boot: 77, Kind: "firmware", Maker: "MSFT", Firmware: "8217.4131", Rollback: "unknown",
		}, of[AttestReport]},
		{"attest-report-updates", &AttestReport{
			V: 1, Release: "1.4.0", Program: bytes.Repeat([]byte{1}, 32), Boot: 77, Kind: "discrete", Rollback: "yes",
			Slot: "1.4.0-0123456789ab", Components: map[string]string{"agent": "1.4.0"}, Floor: 3,
		}, of[AttestReport]},
		{"attest-report-files", &AttestReport{
			V: 1, Release: "1.4.0", Program: bytes.Repeat([]byte{1}, 32), Boot: 77, Kind: "discrete", Rollback: "yes",
			Components: map[string]string{"worker": "1.4.0"}, Files: map[string][]byte{"worker/fulmar-infer": bytes.Repeat([]byte{3}, 32)},
		}, of[AttestReport]},
		{"ack", &Ack{V: 1, Class: ClassEvent, Epoch: 42, Ranges: [][2]uint64{{1, 1}, {3, 900}}}, of[Ack]},
	}
}

// TestVectors: what this program writes is, byte for byte, what it always wrote,
// and what was written once can be read.
func TestVectors(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			file := filepath.Join("testdata", "golden", v.name+".hex")
			seen[v.name+".hex"] = true
			got, err := Encode(v.value)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, wrap(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the encoding changed\n got %x\nwant %x", got, want)
			}
			back := v.blank()
			if err := Decode(want, back); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, v.value) {
				t.Errorf("decoded\n got %+v\nwant %+v", back, v.value)
			}
		})
	}
	files, err := os.ReadDir(filepath.Join("testdata", "golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !seen[f.Name()] {
			t.Errorf("%s belongs to no vector", f.Name())
		}
	}
}

// TestMessageWithAnExpiry: what the format had once is still read, and says nothing.
func TestMessageWithAnExpiry(t *testing.T) {
	const once = "a901010266646f636b2d310303041b0123456789abcdef055000070e151c232a" +
		"31383f464d545b626906f507a3011bfedcba9876543210021b000051e8f5e9c2" +
		"00031b0000019b76daa87b081b0000019b76dc2ea00982820143a10101821b00" +
		"0000040000000043a10101"
	b, err := hex.DecodeString(once)
	if err != nil {
		t.Fatal(err)
	}
	var m Message
	if err := Decode(b, &m); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors() {
		if v.name == "message" && !reflect.DeepEqual(&m, v.value) {
			t.Errorf("decoded\n got %+v\nwant %+v", m, v.value)
		}
	}
}

func wrap(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		n := min(32, len(b))
		out = append(hex.AppendEncode(out, b[:n]), '\n')
		b = b[n:]
	}
	return out
}

// TestNewerFieldsAreSkipped: a field that a later minor version adds does not
// keep this one from reading the rest; a higher wire version does.
func TestNewerFieldsAreSkipped(t *testing.T) {
	t.Parallel()
	newer, err := codec().enc.Marshal(map[int]any{1: 1, 2: true, 3: uint64(5), 4: uint64(6), 99: "later"})
	if err != nil {
		t.Fatal(err)
	}
	var p Presence
	if err := Decode(newer, &p); err != nil || p != (Presence{V: 1, Online: true, Boot: 5, Conn: 6}) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []uint8{0, Version + 1} {
		for _, v := range []any{&Presence{V: bad}, &Hello{V: bad, Board: "b"}, &HelloAck{V: bad}} {
			if _, err := Encode(v); err == nil || !strings.Contains(err.Error(), "wire version") {
				t.Errorf("%T of version %d: %v", v, bad, err)
			}
		}
	}
}
