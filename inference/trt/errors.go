// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
)

// Errors that callers tell apart; each is wrapped with what happened to what.
var (
	// ErrLibrary says that TensorRT is missing, of a version unknown here, or cut.
	ErrLibrary = errors.New("TensorRT cannot be used")
	// ErrDriver says that there is no CUDA driver or no GPU, or that the driver is
	// older than the library.
	ErrDriver = errors.New("no GPU can be used")
	// ErrNetwork says that the library does not build this network.
	ErrNetwork = errors.New("network refused")
	// ErrPlan says that a plan is of another version or GPU, or damaged: build anew.
	ErrPlan = errors.New("plan refused")
	// ErrMemory says that the device or the host has no room.
	ErrMemory = errors.New("not enough memory")
	// ErrDevice says that the device's context is lost and the process has to end.
	ErrDevice = errors.New("the GPU was lost")
	// ErrClosed says that something was used after Close.
	ErrClosed = errors.New("closed")
)

// errCall is what nothing above describes.
var errCall = errors.New("call failed")

// CallError is a call into the libraries that failed.
type CallError struct {
	// Call is its name: "cuMemAlloc", "IBuilder::buildSerializedNetwork".
	Call string
	// Code and Name are the driver's ("CUDA_ERROR_OUT_OF_MEMORY"); 0 and "" where
	// TensorRT failed.
	Code int
	Name string
	// Text is in the library's words, on one line.
	Text string
	kind error
}

// Error is one line.
func (e *CallError) Error() string {
	if e.Name != "" {
		return fmt.Sprintf("%v: %s: %s (%d): %s", e.kind, e.Call, e.Name, e.Code, e.Text)
	}
	return fmt.Sprintf("%v: %s: %s", e.kind, e.Call, e.Text)
}

// Unwrap gives the Err value that the failure belongs to.
func (e *CallError) Unwrap() error { return e.kind }

// Sticky says that the device's context is lost with this error.
func (e *CallError) Sticky() bool { return errors.Is(e.kind, ErrDevice) }

// failure makes an error of what C left; rc is what the call gave.
func failure(rc C.int, e *C.fl_error) error {
	if rc == 0 {
		return nil
	}
	kind := errCall
	switch e.kind {
	case C.FL_LIBRARY:
		kind = ErrLibrary
	case C.FL_DRIVER:
		kind = ErrDriver
	case C.FL_NETWORK:
		kind = ErrNetwork
	case C.FL_PLAN:
		kind = ErrPlan
	case C.FL_MEMORY:
		kind = ErrMemory
	case C.FL_DEVICE:
		kind = ErrDevice
	case C.FL_CANCELLED:
		kind = context.Canceled
	}
	return &CallError{Call: C.GoString(&e.call[0]), Code: int(e.code), Name: C.GoString(&e.name[0]), Text: C.GoString(&e.text[0]), kind: kind}
}
