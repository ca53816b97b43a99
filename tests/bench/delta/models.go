// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"
)

// tensor is where the weights of a convolution stand in an ONNX file, as FP32.
type tensor struct {
	at, size int
	channels int // of output, the first dimension
}

// models makes variants of the repository's own model. They are not retrained but
// perturbed: to each weight gaussian noise of a part of its tensor's spread is added,
// or the last of them are drawn anew. Two forms: the INT8 model as it ships, which
// keeps its weights in FP32 behind Q/DQ pairs, and those weights as INT8 with a scale
// in FP32 for each channel.
func models(cache string) ([]pair, error) {
	const shipped = "models/parcels/parcels_int8.onnx"
	base, err := os.ReadFile(shipped)
	if err != nil {
		return nil, err
	}
	ts, err := tensors(base)
	if err != nil {
		return nil, err
	}
	var pairs []pair
	add := func(name, file string, base, next []byte) error {
		from, to := filepath.Join(cache, file+"-base"), filepath.Join(cache, file)
		if err := errors.Join(os.WriteFile(from, base, 0o644), os.WriteFile(to, next, 0o644)); err != nil {
			return err
		}
		pairs = append(pairs, pair{name, from, to})
		return nil
	}
	all := func(int, float64) bool { return true }
	variants := []struct {
		name  string
		noise float64
		pick  func(tensor int, done float64) bool
	}{
		{"all weights by 1 % of their spread", 0.01, all},
		{"all weights by 2 %", 0.02, all},
		{"all weights by 5 %", 0.05, all},
		{"the last 5 % drawn anew", 1, func(_ int, done float64) bool { return done > 0.95 }},
		{"the head's six convolutions drawn anew", 1, func(tensor int, _ float64) bool { return tensor < 6 }}, // net.h8 and net.h16 come first
	}
	for i, v := range variants {
		next := perturb(base, ts, v.noise, v.pick)
		if err := add("parcels INT8 weights, "+v.name, fmt.Sprintf("int8-%d", i), quantized(base, ts), quantized(next, ts)); err != nil {
			return nil, err
		}
		if err := add("parcels_int8.onnx (FP32 behind Q/DQ), "+v.name, fmt.Sprintf("onnx-%d", i), base, next); err != nil {
			return nil, err
		}
	}
	return pairs, nil
}

// tensors finds the initializers of four dimensions (ModelProto.graph 7, its
// initializer 5; of TensorProto dims 1, raw_data 9).
func tensors(model []byte) (out []tensor, err error) {
	err = fields(model, 0, func(n protowire.Number, graph []byte, at int) error {
		if n != 7 {
			return nil
		}
		return fields(graph, at, func(n protowire.Number, init []byte, at int) error {
			if n != 5 {
				return nil
			}
			t, dims := tensor{}, 0
			err := fields(init, at, func(n protowire.Number, v []byte, at int) error {
				switch n {
				case 1:
					d, _ := protowire.ConsumeVarint(v)
					if dims++; dims == 1 {
						t.channels = int(d)
					}
				case 9:
					t.at, t.size = at, len(v)
				}
				return nil
			})
			if dims == 4 && t.size > 0 && t.size%(4*t.channels) == 0 {
				out = append(out, t)
			}
			return err
		})
	})
	if err == nil && len(out) == 0 {
		err = errors.New("no weights in the model")
	}
	return out, err
}

// fields calls f with each field of a message that stands at in the file.
func fields(b []byte, at int, f func(n protowire.Number, v []byte, at int) error) error {
	for i := 0; i < len(b); {
		num, typ, n := protowire.ConsumeTag(b[i:])
		if n < 0 {
			return protowire.ParseError(n)
		}
		i += n
		size := protowire.ConsumeFieldValue(num, typ, b[i:])
		if size < 0 {
			return protowire.ParseError(size)
		}
		v, start := b[i:i+size], i
		if typ == protowire.BytesType {
			v, _ = protowire.ConsumeBytes(b[i:])
			start = i + size - len(v)
		}
		if err := f(num, v, at+start); err != nil {
			return err
		}
		i += size
	}
	return nil
}

func weight(b []byte, i int) float64 {
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(b[i:])))
}

// perturb changes the weights that pick names, by their tensor and the part of all
// that came before, by noise times the spread of the tensor; 1 draws them anew.
func perturb(model []byte, ts []tensor, noise float64, pick func(tensor int, done float64) bool) []byte {
	out := append([]byte(nil), model...)
	rng := rand.New(rand.NewPCG(26, 11))
	total, seen := 0, 0
	for _, t := range ts {
		total += t.size
	}
	for k, t := range ts {
		var sum, squares float64
		for i := t.at; i < t.at+t.size; i += 4 {
			sum += weight(model, i)
			squares += weight(model, i) * weight(model, i)
		}
		n := float64(t.size / 4)
		spread := math.Sqrt(squares/n - sum/n*sum/n)
		for i := t.at; i < t.at+t.size; i += 4 {
			seen += 4
			if !pick(k, float64(seen)/float64(total)) {
				continue
			}
			w := weight(model, i)*(1-math.Floor(noise)) + rng.NormFloat64()*spread*noise
			binary.LittleEndian.PutUint32(out[i:], math.Float32bits(float32(w)))
		}
	}
	return out
}

// quantized is the weights as INT8, symmetric for each channel, scales in front.
func quantized(model []byte, ts []tensor) (out []byte) {
	for _, t := range ts {
		per := t.size / t.channels
		for c := range t.channels {
			top := 0.0
			at := t.at + c*per
			for i := at; i < at+per; i += 4 {
				top = max(top, math.Abs(weight(model, i)))
			}
			scale := top / 127
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(scale)))
			for i := at; i < at+per; i += 4 {
				out = append(out, byte(int8(math.Round(weight(model, i)/max(scale, 1e-30)))))
			}
		}
	}
	return out
}
