// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"fulmar/schema"
)

func fullSetup() Setup {
	s := Setup{BlobDir: "/var/lib/fulmar/blobs", BlobQuota: 1 << 30, Threads: 4}
	s.Engines = Engines{Cache: "/var/lib/fulmar/engines", Quota: 2 << 30, DLA: true, MaxBatch: 64}
	for i := range MaxModels {
		s.Models = append(s.Models, Model{Name: "m" + string(rune('a'+i)), Path: strings.Repeat("p", 200), Variant: "int8", Engine: EngineTensorRT})
	}
	for i := range MaxCameras {
		s.Cameras = append(s.Cameras, Camera{
			Name: "cam" + strconv.Itoa(i), Kind: "files", Path: strings.Repeat("q", 200), FPS: 30,
			Model: "ma", EventEvery: time.Second, SnapshotEvery: time.Minute,
		})
	}
	return s
}

func fullResult() Result {
	r := Result{Time: schema.Time{Boot: math.MaxUint64, Mono: math.MaxInt64, Wall: math.MaxInt64}}
	r.Event = schema.Event{
		Source: strings.Repeat("s", schema.MaxName), Model: strings.Repeat("m", schema.MaxName), Frame: math.MaxUint64,
		Width: 8192, Height: 8192, Engine: strings.Repeat("e", schema.MaxName), Snapshot: strings.Repeat("b", schema.MaxName),
		Labels: map[uint16]string{},
	}
	for i := range schema.MaxDetections {
		b := schema.Box{Class: uint16(i), Score: 0.1234, X0: 1.23, Y0: 2.34, X1: 3.45, Y1: 4.56, Match: schema.MatchFalse}
		r.Event.Boxes = append(r.Event.Boxes, b)
		r.Event.Truth = append(r.Event.Truth, b)
		r.Event.Labels[uint16(i)] = strings.Repeat("l", schema.MaxName)
	}
	r.Snapshot = &schema.Snapshot{Name: r.Event.Snapshot, Size: 1 << 20, Media: "image/jpeg", Source: r.Event.Source, Frame: math.MaxUint64}
	return r
}

func fullStatus() Status {
	s := Status{Release: strings.Repeat("r", maxRelease), ResultsDropped: math.MaxUint64, BlobBytes: math.MaxInt64, BlobsEvicted: math.MaxUint64}
	name, text := strings.Repeat("n", schema.MaxName), strings.Repeat("t", MaxErrorText)
	for range MaxCameras {
		s.Cameras = append(s.Cameras, CameraStatus{Name: name, State: name, Error: text, Frames: math.MaxUint64, FPS: 1.2345, P50Us: math.MaxUint32})
	}
	for range MaxModels {
		s.Models = append(s.Models, ModelStatus{
			Name: name, State: name, Error: text, Engine: name, Version: name, SHA256: strings.Repeat("a", 64),
			EngineVersion: name, Build: text, Fallback: text,
		})
	}
	return s
}

// The largest values that Validate lets through must fit their frames, else a
// full board could not be told to its worker.
func TestFullValuesFitTheirFrames(t *testing.T) {
	t.Parallel()
	s, n, st := fullSetup(), numbered{math.MaxUint64, fullResult()}, fullStatus()
	for _, c := range []struct {
		v     interface{ Validate() error }
		k     kind
		limit int
	}{{&s, kindSetup, MaxDown}, {&n, kindResult, MaxUp}, {&st, kindStatus, MaxUp}} {
		if err := c.v.Validate(); err != nil {
			t.Fatal(err)
		}
		b, err := appendFrame(nil, c.k, c.v, c.limit)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%T: %d bytes of %d", c.v, len(b), c.limit)
		k, body, err := (&frameReader{r: bytes.NewReader(b), limit: c.limit}).next()
		if err != nil || k != c.k {
			t.Fatalf("kind %d, error %v", k, err)
		}
		back := reflect.New(reflect.TypeOf(c.v).Elem()).Interface()
		if err := decode(body, back); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back, c.v) {
			t.Errorf("%T came back different", c.v)
		}
	}
}

func TestFrameReaderRefusesBeforeAllocating(t *testing.T) {
	t.Parallel()
	b := binary.BigEndian.AppendUint32(nil, MaxUp+1)
	fr := &frameReader{r: bytes.NewReader(b), limit: MaxUp}
	if _, _, err := fr.next(); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("oversize frame: %v", err)
	}
	if fr.buf != nil {
		t.Errorf("%d bytes taken for a refused frame", cap(fr.buf))
	}
	fr = &frameReader{r: bytes.NewReader(make([]byte, 4)), limit: MaxUp}
	if _, _, err := fr.next(); !errors.Is(err, errEmptyFrame) {
		t.Errorf("empty frame: %v", err)
	}
	fr = &frameReader{r: bytes.NewReader([]byte{0, 0, 0, 9, 1, 2}), limit: MaxUp}
	if _, _, err := fr.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut frame: %v", err)
	}
}

func TestValidateRefuses(t *testing.T) {
	t.Parallel()
	for name, breakIt := range map[string]func(*Setup){
		"too many cameras":     func(s *Setup) { s.Cameras = append(s.Cameras, s.Cameras[0]) },
		"camera twice":         func(s *Setup) { s.Cameras[1].Name = s.Cameras[0].Name },
		"model twice":          func(s *Setup) { s.Models[1].Name = s.Models[0].Name },
		"unknown model":        func(s *Setup) { s.Cameras[0].Model = "none" },
		"no rate":              func(s *Setup) { s.Cameras[0].FPS = 0 },
		"rate is no number":    func(s *Setup) { s.Cameras[0].FPS = math.NaN() },
		"density is no number": func(s *Setup) { s.Cameras[0].Kind, s.Cameras[0].Density = "scene", math.NaN() },
		"unknown kind":         func(s *Setup) { s.Cameras[0].Kind = "rtsp" },
		"no folder":            func(s *Setup) { s.Cameras[0].Path = "" },
		"name goes up":         func(s *Setup) { s.Cameras[0].Name = "../x" },
		"negative event time":  func(s *Setup) { s.Cameras[0].EventEvery = -1 },
		"pictures nowhere":     func(s *Setup) { s.BlobDir = "" },
		"many threads":         func(s *Setup) { s.Threads = 1000 },
		"negative quota":       func(s *Setup) { s.BlobQuota = -1 },
		"unknown engine":       func(s *Setup) { s.Models[0].Engine = "cuda" },
		"large batch":          func(s *Setup) { s.Engines.MaxBatch = 65 },
		"negative cache":       func(s *Setup) { s.Engines.Quota = -1 },
	} {
		s := fullSetup()
		breakIt(&s)
		if err := s.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzFrames throws bytes at the reader and all decoders: no panic, no memory over
// the limit, and what decodes encodes again.
func FuzzFrames(f *testing.F) {
	s, n := fullSetup(), numbered{1, fullResult()}
	n.Result.Event.Boxes, n.Result.Event.Truth, n.Result.Event.Labels = n.Result.Event.Boxes[:2], nil, nil
	for k, v := range map[kind]any{
		kindSetup: &s, kindResult: &n, kindHello: hello{Protocol, "v1", 7}, kindPing: ping{1},
		kindTaken: taken{9}, kindRefuse: refusal{"no"},
		kindStatus: Status{Release: "v1", Cameras: []CameraStatus{{Name: "a"}}, Models: []ModelStatus{{Name: "b", EngineVersion: "TensorRT 10.3.0 on Orin", Build: "building, 40 %", Fallback: "no TensorRT"}}},
	} {
		b, err := appendFrame(nil, k, v, MaxUp)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := &frameReader{r: bytes.NewReader(b), limit: MaxDown}
		for {
			_, body, err := fr.next()
			if cap(fr.buf) > MaxDown {
				t.Fatalf("%d bytes of buffer", cap(fr.buf))
			}
			if err != nil {
				return
			}
			for _, v := range []any{new(hello), new(refusal), new(Setup), new(numbered), new(Status), new(ping), new(taken)} {
				if decode(body, v) != nil {
					continue
				}
				if _, err := appendFrame(nil, 1, v, MaxUp*2); err != nil {
					t.Fatalf("%T decoded but does not encode: %v", v, err)
				}
			}
		}
	})
}
