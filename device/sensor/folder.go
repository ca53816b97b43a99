// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"sync/atomic"

	"fulmar/device"
)

// folder is a sensor whose hardware is the entries of a folder of sysfs. It looks
// at the folder at first and once a minute.
type folder struct {
	name  string
	root  device.Root
	look  func(device.Root) []attr
	probe probe
	attrs []attr
	found atomic.Int32
}

// Name names the sensor.
func (f *folder) Name() string { return f.name }

// Found tells how many attributes were found at the last look.
func (f *folder) Found() int { return int(f.found.Load()) }

// Close gives all files back.
func (f *folder) Close() error {
	for i := range f.attrs {
		f.attrs[i].file.Close()
	}
	return nil
}

// Read implements [device.Sensor].
func (f *folder) Read(dst []device.Reading) []device.Reading {
	if f.probe.due() {
		fresh := f.look(f.root)
		adopt(f.attrs, fresh)
		f.attrs = fresh
		f.found.Store(int32(len(fresh)))
	}
	for i := range f.attrs {
		dst = f.attrs[i].read(dst)
	}
	return dst
}
