// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Tensor is a constant of the file: an initializer or the value of a Constant node.
type Tensor struct {
	Name string
	Type Type
	Dims []int64

	raw []byte // the message
}

// parseTensor reads what a constant is; its numbers are read when they are asked for.
func parseTensor(b []byte) (Tensor, error) {
	t := Tensor{raw: b}
	size := int64(1)
	err := walk(b, func(x field) error {
		var err error
		switch x.num {
		case 1:
			t.Dims, err = numbers(t.Dims, x, MaxRank)
		case 2:
			t.Type = Type(x.u)
		case 8:
			t.Name, err = name(x)
		case 13, 14:
			if x.num == 13 || x.u != 0 {
				err = errors.New("its numbers are in another file; export the network with its weights inside")
			}
		}
		return err
	})
	if err != nil {
		return t, err
	}
	for _, d := range t.Dims {
		if d < 0 || d > MaxSize || d > 0 && size > MaxSize/d {
			return t, fmt.Errorf("its shape %v is too large", t.Dims)
		}
		size *= d
	}
	return t, nil
}

// Size is how many numbers the tensor has.
func (t *Tensor) Size() int64 {
	size := int64(1)
	for _, d := range t.Dims {
		size *= d
	}
	return size
}

// width is the bytes of one number in raw data.
func (t *Tensor) width() int64 {
	switch t.Type {
	case Uint8, Int8:
		return 1
	case Float, Int32:
		return 4
	case Int64:
		return 8
	}
	return 0
}

// Ints reads a tensor of INT8, UINT8, INT32 or INT64.
func (t *Tensor) Ints() ([]int64, error) {
	var typed protowire.Number = 5
	if t.Type == Int64 {
		typed = 7
	}
	if w := t.width(); w == 0 || t.Type == Float {
		return nil, fmt.Errorf("%q has elements of ONNX type %d, wants whole numbers", t.Name, t.Type)
	}
	raw, values, err := t.data(typed)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		if t.Type != Int64 {
			for i, v := range values {
				values[i] = int64(int32(v))
			}
		}
		return values, nil
	}
	values = make([]int64, t.Size())
	for i := range values {
		switch t.Type {
		case Uint8:
			values[i] = int64(raw[i])
		case Int8:
			values[i] = int64(int8(raw[i]))
		case Int32:
			values[i] = int64(int32(binary.LittleEndian.Uint32(raw[4*i:])))
		default:
			values[i] = int64(binary.LittleEndian.Uint64(raw[8*i:]))
		}
	}
	return values, nil
}

// Floats reads a tensor of float32.
func (t *Tensor) Floats() ([]float32, error) {
	if t.Type != Float {
		return nil, fmt.Errorf("%q has elements of ONNX type %d, wants float32", t.Name, t.Type)
	}
	raw, _, err := t.data(4)
	if err != nil {
		return nil, err
	}
	values := make([]float32, t.Size())
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return values, nil
}

// data finds the numbers: raw bytes of the right length, or, where the file has them
// one by one, their values. Floats one by one have the form of raw ones.
func (t *Tensor) data(typed protowire.Number) (raw []byte, values []int64, err error) {
	size := t.Size()
	if size > int64(len(t.raw)) {
		return nil, nil, fmt.Errorf("%q has shape %v and %d bytes in all", t.Name, t.Dims, len(t.raw))
	}
	var floats []byte // apart from raw, which is the file's memory
	err = walk(t.raw, func(x field) error {
		switch {
		case x.num == 9 && x.typ == protowire.BytesType:
			raw = x.val
		case x.num == typed && typed == 4 && x.typ == protowire.BytesType:
			floats = append(floats, x.val...)
		case x.num == typed && typed == 4:
			floats = binary.LittleEndian.AppendUint32(floats, uint32(x.u))
		case x.num == typed:
			values, err = numbers(values, x, int(size))
			return err
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if raw == nil {
		raw = floats
	}
	if values != nil && raw == nil && int64(len(values)) == size || size == 0 {
		return raw, values, nil
	}
	if int64(len(raw)) != size*t.width() {
		return nil, nil, fmt.Errorf("%q has shape %v, and not as many numbers", t.Name, t.Dims)
	}
	return raw, nil, nil
}

// FloatTensor is the message of a tensor of float32.
func FloatTensor(name string, dims []int64, values []float32) []byte {
	raw := make([]byte, 0, 4*len(values))
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return tensorMessage(name, Float, dims, raw)
}

// IntTensor is the message of a vector of int64.
func IntTensor(name string, values []int64) []byte {
	var raw []byte
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}
	return tensorMessage(name, Int64, []int64{int64(len(values))}, raw)
}

func tensorMessage(name string, typ Type, dims []int64, raw []byte) []byte {
	var t []byte
	for _, d := range dims {
		t = number(t, 1, uint64(d))
	}
	t = text(number(t, 2, uint64(typ)), 8, name)
	return message(t, 9, raw)
}

// ConstantNode is the message of a node that makes a tensor.
func ConstantNode(out string, tensor []byte) []byte {
	const kindTensor = 4
	a := message(text(nil, 1, "value"), 5, tensor)
	n := text(text(nil, 2, out), 3, out)
	return message(text(n, 4, "Constant"), 5, number(a, 20, kindTensor))
}
