// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ort

import (
	"context"
	"errors"
	"fmt"
	"slices"

	onnx "github.com/yalue/onnxruntime_go"

	"fulmar/inference/tensor"
)

// MaxThreads bounds the threads of one session; no board has more cores.
const MaxThreads = 64

// MaxTensors bounds the inputs, and the outputs, of a network; the largest head
// known here has 12.
const MaxTensors = 32

// Options say how a session runs.
type Options struct {
	// Threads is how many CPU threads a run uses, its caller included; 0 means 1.
	Threads int
}

// Session is a loaded network with its inputs and outputs.
type Session struct {
	session *onnx.AdvancedSession
	values  []onnx.Value
	in, out []*tensor.Tensor
}

// NewSession loads a network from the bytes of its ONNX file. A dimension that the
// file leaves open is taken as 1 if it is the first (the batch); elsewhere it is
// refused in an input, and learned by a run on zeros in an output. Data beside the file (external weights) is not read.
func (r *Runtime) NewSession(network []byte, opt Options) (*Session, error) {
	if opt.Threads < 0 || opt.Threads > MaxThreads {
		return nil, fmt.Errorf("%d threads, wants 0 to %d", opt.Threads, MaxThreads)
	}
	if len(network) == 0 {
		return nil, fmt.Errorf("%w: the file is empty", ErrModel)
	}
	o, err := options(opt)
	if err != nil {
		return nil, err
	}
	defer o.Destroy()
	ins, outs, err := onnx.GetInputOutputInfoWithONNXData(network)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrModel, reason(err))
	}
	if len(ins) == 0 || len(outs) == 0 || len(ins) > MaxTensors || len(outs) > MaxTensors {
		return nil, fmt.Errorf("%w: %d inputs and %d outputs, wants 1 to %d of each", ErrModel, len(ins), len(outs), MaxTensors)
	}
	s := &Session{}
	if err := s.load(network, ins, outs, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func options(opt Options) (*onnx.SessionOptions, error) {
	o, err := onnx.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("session options: %s", reason(err))
	}
	for _, err := range []error{
		o.SetIntraOpNumThreads(max(1, opt.Threads)),
		o.SetInterOpNumThreads(1),
		// Threads that spin between two runs take the cores from everything else on
		// the board and heat it; sleeping costs about a tenth of a run's time.
		o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
		o.AddSessionConfigEntry("session.inter_op.allow_spinning", "0"),
		// On x86 without VNNI the fast INT8 product saturates in 16 bits and boxes are
		// lost in silence; this takes the exact one there. Other machines ignore it.
		o.AddSessionConfigEntry("session.x64quantprecision", "1"),
	} {
		if err != nil {
			return nil, errors.Join(fmt.Errorf("session options: %s", reason(err)), o.Destroy())
		}
	}
	return o, nil
}

func (s *Session) load(network []byte, ins, outs []onnx.InputOutputInfo, o *onnx.SessionOptions) error {
	var err error
	var inputs, outputs []onnx.Value
	var inNames, outNames []string
	if s.in, inputs, inNames, err = s.blocks(ins); err != nil {
		return err
	}
	for _, info := range outs {
		outNames = append(outNames, info.Name)
	}
	for _, info := range outs {
		// Open beyond the batch: a run says what it is for inputs of this size.
		if len(info.Dimensions) > 1 && slices.Min(info.Dimensions[1:]) < 1 {
			if err := probe(network, inNames, outNames, inputs, outs, o); err != nil {
				return err
			}
			break
		}
	}
	if s.out, outputs, _, err = s.blocks(outs); err != nil {
		return err
	}
	session, err := onnx.NewAdvancedSessionWithONNXData(network, inNames, outNames, inputs, outputs, o)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrModel, reason(err))
	}
	s.session = session
	return nil
}

// probe runs the network once on zeros, with outputs that the library allocates, and
// puts their shapes into outs.
func probe(network []byte, inNames, outNames []string, inputs []onnx.Value, outs []onnx.InputOutputInfo, o *onnx.SessionOptions) error {
	s, err := onnx.NewDynamicAdvancedSessionWithONNXData(network, inNames, outNames, o)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrModel, reason(err))
	}
	defer s.Destroy()
	values := make([]onnx.Value, len(outs))
	if err := s.Run(inputs, values); err != nil {
		return fmt.Errorf("%w: a run on zeros, to learn its outputs' shapes: %s", ErrModel, reason(err))
	}
	for i, v := range values {
		outs[i].Dimensions = v.GetShape()
		v.Destroy()
	}
	return nil
}

// blocks maps the memory of all inputs or all outputs. What was made before an error
// is freed with the session.
func (s *Session) blocks(infos []onnx.InputOutputInfo) (ts []*tensor.Tensor, vs []onnx.Value, names []string, err error) {
	for _, info := range infos {
		t, v, err := block(info)
		if err != nil {
			return ts, vs, names, err
		}
		s.values = append(s.values, v)
		ts, vs, names = append(ts, t), append(vs, v), append(names, info.Name)
	}
	return ts, vs, names, nil
}

// block maps the memory of one input or output and gives it to the library.
func block(info onnx.InputOutputInfo) (*tensor.Tensor, onnx.Value, error) {
	if info.OrtValueType != onnx.ONNXTypeTensor {
		return nil, nil, fmt.Errorf("%w: %s is no tensor", ErrModel, info.Name)
	}
	shape := make([]int, len(info.Dimensions))
	for i, d := range info.Dimensions {
		if shape[i] = int(d); d < 1 {
			if i > 0 || d == 0 {
				return nil, nil, fmt.Errorf("%w: %s has shape %v; only the first dimension may be open, export it with fixed sizes", ErrModel, info.Name, info.Dimensions)
			}
			shape[i] = 1
		}
	}
	var typ tensor.Type
	switch info.DataType {
	case onnx.TensorElementDataTypeFloat:
		typ = tensor.Float32
	case onnx.TensorElementDataTypeInt64:
		typ = tensor.Int64
	default:
		return nil, nil, fmt.Errorf("%w: %s has elements of type %v; float32 and int64 are known", ErrModel, info.Name, info.DataType)
	}
	t, err := tensor.New(info.Name, typ, shape...)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrModel, err)
	}
	dims := make(onnx.Shape, len(shape))
	for i, d := range shape {
		dims[i] = int64(d)
	}
	var v onnx.Value
	if typ == tensor.Float32 {
		v, err = onnx.NewTensor(dims, t.Float32())
	} else {
		v, err = onnx.NewTensor(dims, t.Int64())
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%w: %s: %s", ErrModel, info.Name, reason(err)), t.Free())
	}
	return t, v, nil
}

// Inputs are written before a run; the same tensors for the session's life.
func (s *Session) Inputs() []*tensor.Tensor { return s.in }

// Outputs hold the last run's results; the same tensors for the session's life.
func (s *Session) Outputs() []*tensor.Tensor { return s.out }

// Run computes the outputs. A context that ended before is returned as its error; a
// run that has begun takes its few milliseconds.
func (s *Session) Run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.session == nil {
		return fmt.Errorf("run: %w", ErrClosed)
	}
	if err := s.session.Run(); err != nil {
		return fmt.Errorf("run: %s", reason(err))
	}
	return nil
}

// Close frees the network and its tensors. A second call does nothing.
func (s *Session) Close() error {
	var errs []error
	if s.session != nil {
		errs = append(errs, s.session.Destroy())
	}
	for _, v := range s.values {
		errs = append(errs, v.Destroy())
	}
	for _, t := range append(s.in, s.out...) {
		errs = append(errs, t.Free())
	}
	s.session, s.values, s.in, s.out = nil, nil, nil, nil
	return errors.Join(errs...)
}
