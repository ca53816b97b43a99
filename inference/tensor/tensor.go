// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tensor

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	gorgonia "gorgonia.org/tensor"
)

// MaxBytes bounds the memory of one tensor: a 4K picture as float32 is 100 MB, and
// a file that asks for more than twice that is broken or hostile.
const MaxBytes = 256 << 20

// MaxForeign bounds the memory of a tensor that an engine brings: a batch of pictures.
const MaxForeign = 1 << 30

// MaxDims bounds the number of dimensions; detectors use up to 5.
const MaxDims = 8

// Type is the type of a tensor's elements.
type Type uint8

// The element types that engines hand over. Quantized networks take and give
// float32 too: the steps to INT8 and back are inside them.
const (
	Float32 Type = iota
	Int64
)

// String names the type as model.yaml does.
func (t Type) String() string {
	switch t {
	case Float32:
		return "float32"
	case Int64:
		return "int64"
	}
	return fmt.Sprintf("type-%d", uint8(t))
}

// Size is the size of one element, in bytes.
func (t Type) Size() int {
	if t == Int64 {
		return 8
	}
	return 4
}

// Tensor is a block of memory with a name, a type and a fixed shape, row-major.
type Tensor struct {
	name  string
	typ   Type
	shape []int
	mem   []byte
	dense *gorgonia.Dense
	// mapped says that the memory is this tensor's own.
	mapped bool
}

// New maps zeroed memory for a tensor. Each dimension is at least 1.
func New(name string, typ Type, shape ...int) (*Tensor, error) {
	n, err := size(name, typ, shape, MaxBytes)
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("tensor %q: map %d bytes: %w", name, n, err)
	}
	t := over(name, typ, mem, shape)
	t.mapped = true
	return t, nil
}

// Over makes a tensor of memory that is somebody else's, outside of the Go heap and
// as long as the shape says; Free leaves it alone.
func Over(name string, typ Type, mem []byte, shape ...int) (*Tensor, error) {
	n, err := size(name, typ, shape, MaxForeign)
	if err != nil {
		return nil, err
	}
	if n != len(mem) {
		return nil, fmt.Errorf("tensor %q: shape %v wants %d bytes, there are %d", name, shape, n, len(mem))
	}
	return over(name, typ, mem, shape), nil
}

// size checks type and shape and gives the memory they take, in bytes.
func size(name string, typ Type, shape []int, most int) (int, error) {
	if typ != Float32 && typ != Int64 {
		return 0, fmt.Errorf("tensor %q: %v is no element type known here", name, typ)
	}
	if len(shape) == 0 || len(shape) > MaxDims {
		return 0, fmt.Errorf("tensor %q: %d dimensions, wants 1 to %d", name, len(shape), MaxDims)
	}
	n := typ.Size()
	for _, d := range shape {
		if d < 1 || d > most/n {
			return 0, fmt.Errorf("tensor %q: shape %v is over %d MiB or has an empty dimension", name, shape, most>>20)
		}
		n *= d
	}
	return n, nil
}

func over(name string, typ Type, mem []byte, shape []int) *Tensor {
	t := &Tensor{name: name, typ: typ, shape: append([]int(nil), shape...), mem: mem}
	dt := gorgonia.Float32
	if typ == Int64 {
		dt = gorgonia.Int64
	}
	t.dense = gorgonia.New(gorgonia.Of(dt), gorgonia.WithShape(t.Shape()...),
		gorgonia.FromMemory(uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem))))
	return t
}

// Part is picture i of a batch: a tensor whose first dimension is 1 over the same
// memory. It lives as long as t does and its own Free gives nothing back; i outside
// the first dimension panics as an index does.
func (t *Tensor) Part(i int) *Tensor {
	n := len(t.mem) / t.shape[0]
	shape := t.Shape()
	shape[0] = 1
	return over(t.name, t.typ, t.mem[i*n:(i+1)*n:(i+1)*n], shape)
}

// Name is the name that the network's file gives it.
func (t *Tensor) Name() string { return t.name }

// Type is the type of the elements.
func (t *Tensor) Type() Type { return t.typ }

// Shape is a copy of the dimensions, the outermost first.
func (t *Tensor) Shape() []int { return append([]int(nil), t.shape...) }

// Dims is the number of dimensions and Dim the size of one; neither allocates.
func (t *Tensor) Dims() int { return len(t.shape) }

// Dim is the size of dimension i.
func (t *Tensor) Dim(i int) int { return t.shape[i] }

// Len is the number of elements.
func (t *Tensor) Len() int { return len(t.mem) / t.typ.Size() }

// Float32 is the memory itself; nil if the elements are of another type or the
// tensor was freed.
func (t *Tensor) Float32() []float32 {
	if t.typ != Float32 || t.mem == nil {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&t.mem[0])), len(t.mem)/4)
}

// Int64 is the memory itself; nil if the elements are of another type or the
// tensor was freed.
func (t *Tensor) Int64() []int64 {
	if t.typ != Int64 || t.mem == nil {
		return nil
	}
	return unsafe.Slice((*int64)(unsafe.Pointer(&t.mem[0])), len(t.mem)/8)
}

// Dense is the same memory as a dense array of gorgonia.org/tensor, made once. It
// is for code that computes with arrays; it must not outlive the tensor.
func (t *Tensor) Dense() *gorgonia.Dense { return t.dense }

// Free gives the memory back. A second call does nothing.
func (t *Tensor) Free() error {
	if t.mem == nil {
		return nil
	}
	mem := t.mem
	t.mem, t.dense = nil, nil
	if !t.mapped {
		return nil
	}
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("tensor %q: unmap: %w", t.name, err)
	}
	return nil
}

// String is the name, type and shape, for errors: `images float32 [1 3 416 416]`.
func (t *Tensor) String() string {
	return fmt.Sprintf("%s %v %v", t.name, t.typ, t.shape)
}
