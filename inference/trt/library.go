// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trt

/*
#cgo CFLAGS: -std=gnu11 -O2 -Wall -Wextra
#cgo LDFLAGS: -ldl -lpthread
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Options say what to open.
type Options struct {
	// Dirs are searched for the libraries; none stands for [Dirs].
	Dirs []string
	// Log takes what the libraries log; nil drops it.
	Log *slog.Logger
	// Verbose takes the libraries' most detailed lines too, as debug lines.
	Verbose bool
	// DriverOnly opens the CUDA driver and nothing of TensorRT, for checks of a GPU.
	DriverOnly bool
}

// Info tells what was opened.
type Info struct {
	// Flavour is "TensorRT" or "TensorRT for RTX".
	Flavour string
	// Version is "10.3.0", Major the table in use: 8, 10 or 11.
	Version string
	Major   int
	// Parser is whether networks can be built of ONNX files.
	Parser bool
	// Found says where the libraries lie.
	Found Found
	// Driver is the CUDA version of the driver, "12.6"; "" without a driver: plans can
	// perhaps be built, not run.
	Driver string
	// Device is its name, "Orin"; ComputeCapability "8.7".
	Device            string
	ComputeCapability string
	SMs               int
	Memory            int64 // bytes
	// Integrated says that CPU and GPU share the memory, as on Jetson boards.
	Integrated bool
	// DLACores is how many there are.
	DLACores int
}

// Library is an opened TensorRT. It may be used by several goroutines.
type Library struct {
	info Info
	log  *slog.Logger

	mu      sync.Mutex // the handle and the line below
	lib     *C.fl_lib
	engines int
	line    *C.char // room for one log line, taken under logMu

	logMu sync.Mutex
	lost  atomic.Bool // the device is
}

// logBytes is the longest log line taken, LOG_BYTES in inner.h.
const logBytes = 1000

// Open opens the libraries. Without a driver it opens too, if nothing else is wrong:
// [Library.Load] then says what is missing. Errors wrap [ErrLibrary] or [ErrDriver].
func Open(o Options) (*Library, error) {
	found := Find(o.Dirs...)
	switch {
	case o.DriverOnly && found.Driver == "":
		return nil, fmt.Errorf("%w: no %s in %s", ErrDriver, driverName, strings.Join(found.Dirs, ", "))
	case o.DriverOnly:
		found.Infer, found.Parser = "", ""
	case found.Infer == "":
		return nil, found.missing()
	}
	l := &Library{log: o.Log}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	text := func(s string) *C.char {
		if s == "" {
			return nil
		}
		return C.CString(s)
	}
	infer, parser, driver := text(found.Infer), text(found.Parser), text(found.Driver)
	defer func() {
		for _, p := range []*C.char{infer, parser, driver} {
			C.free(unsafe.Pointer(p))
		}
	}()
	var e C.fl_error
	if err := failure(C.fl_open(infer, parser, driver, &l.lib, &e), &e); err != nil {
		return nil, fmt.Errorf("open %s: %w", cmp.Or(found.Infer, found.Driver), err)
	}
	level := C.int32_t(3) // Severity::kINFO
	if o.Verbose {
		level = 4
	}
	C.fl_log_level(l.lib, level)
	l.line = (*C.char)(C.malloc(logBytes))
	if found.Driver != "" {
		// Made now, so that a driver too old for the library is known before a model
		// waits for it.
		if err := l.start(); err != nil {
			l.drain()
			return nil, errors.Join(err, l.Close())
		}
	}
	l.describe(found)
	l.drain()
	return l, nil
}

// start makes the runtime.
func (l *Library) start() error {
	var e C.fl_error
	return failure(C.fl_start(l.lib, &e), &e)
}

func (l *Library) describe(found Found) {
	var i C.fl_info
	C.fl_get_info(l.lib, &i)
	v := int(i.version)
	l.info = Info{
		Flavour: "TensorRT", Major: int(i.major), Parser: i.parser_version > 0, Found: found,
		Device: C.GoString(&i.device[0]), SMs: int(i.sms), Memory: int64(i.memory),
		Integrated: i.integrated == 1, DLACores: max(0, int(i.dla_cores)),
	}
	switch {
	case i.rtx == 1:
		l.info.Flavour = "TensorRT for RTX"
		l.info.Version = fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100)
	case i.major == 8:
		l.info.Version = fmt.Sprintf("%d.%d.%d", v/1000, v/100%10, v%100)
	default:
		l.info.Version = fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100)
	}
	if d := int(i.driver); d > 0 {
		l.info.Driver = fmt.Sprintf("%d.%d", d/1000, d/10%100)
		l.info.ComputeCapability = fmt.Sprintf("%d.%d", i.cc_major, i.cc_minor)
	}
}

// Info tells what was opened.
func (l *Library) Info() Info { return l.info }

// Lost says that the device's context is lost: the process has to end.
func (l *Library) Lost() bool { return l.lost.Load() }

// use gives the handle for a call; done is to be called after it.
func (l *Library) use() (*C.fl_lib, func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lib == nil {
		return nil, nil, fmt.Errorf("TensorRT library: %w", ErrClosed)
	}
	l.engines++ // a build holds the library open as an engine does
	return l.lib, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.engines--
	}, nil
}

// drain hands what the libraries logged to the log.
func (l *Library) drain() {
	l.logMu.Lock()
	defer l.logMu.Unlock()
	for {
		var lost C.uint64_t
		severity := C.fl_log_take(l.lib, l.line, logBytes, &lost)
		if lost > 0 {
			l.log.Warn("TensorRT logged faster than it was read", "lines_lost", uint64(lost))
		}
		if severity < 0 {
			return
		}
		l.log.Log(context.Background(), severityLevel(int(severity)), C.GoString(l.line), "from", "tensorrt")
	}
}

// severityLevel is TensorRT's severity in the log's terms. What it calls info is
// detail of a build.
func severityLevel(s int) slog.Level {
	switch s {
	case 0, 1:
		return slog.LevelError
	case 2:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Close gives everything back. It refuses while an engine is open or a build runs. A
// second call does nothing.
func (l *Library) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lib == nil {
		return nil
	}
	if l.engines > 0 && !l.lost.Load() {
		return fmt.Errorf("close TensorRT: %d engines or builds still use it", l.engines)
	}
	C.fl_close(l.lib)
	l.logMu.Lock()
	defer l.logMu.Unlock()
	C.free(unsafe.Pointer(l.line))
	l.lib, l.line = nil, nil
	return nil
}

// note remembers a lost device.
func (l *Library) note(err error) error {
	if errors.Is(err, ErrDevice) {
		l.lost.Store(true)
	}
	return err
}
