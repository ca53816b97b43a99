// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is one field of a message, where it lies in the file.
type field struct {
	num protowire.Number
	typ protowire.Type
	raw []byte // tag and value
	val []byte // the value of a length-delimited field
	u   uint64 // the value of a number
}

// walk calls f for each field of a message.
func walk(b []byte, f func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		x := field{num: num, typ: typ}
		l := 0
		switch typ {
		case protowire.BytesType:
			x.val, l = protowire.ConsumeBytes(b[n:])
		case protowire.VarintType:
			x.u, l = protowire.ConsumeVarint(b[n:])
		case protowire.Fixed32Type:
			var v uint32
			v, l = protowire.ConsumeFixed32(b[n:])
			x.u = uint64(v)
		case protowire.Fixed64Type:
			x.u, l = protowire.ConsumeFixed64(b[n:])
		default:
			return fmt.Errorf("field %d has wire type %d, which ONNX does not use", num, typ)
		}
		if l < 0 {
			return protowire.ParseError(l)
		}
		x.raw = b[:n+l]
		if err := f(x); err != nil {
			return err
		}
		b = b[n+l:]
	}
	return nil
}

// numbers appends what a repeated field of numbers holds, packed or not.
func numbers(dst []int64, x field, limit int) ([]int64, error) {
	if x.typ != protowire.BytesType {
		if len(dst) >= limit {
			return nil, fmt.Errorf("over %d numbers", limit)
		}
		return append(dst, int64(x.u)), nil
	}
	for b := x.val; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		if len(dst) >= limit {
			return nil, fmt.Errorf("over %d numbers", limit)
		}
		dst, b = append(dst, int64(v)), b[n:]
	}
	return dst, nil
}

func name(x field) (string, error) {
	if x.typ != protowire.BytesType || len(x.val) > maxName {
		return "", fmt.Errorf("a name of over %d bytes", maxName)
	}
	return string(x.val), nil
}

var errWire = errors.New("a field has another wire type than ONNX gives it")

func message(b []byte, num protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), m)
}

func text(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func number(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}
