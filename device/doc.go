// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package device is the border to the board's own hardware: where the kernel's
// files are ([Root]), how one of them is read without ever waiting for it
// ([File]), and what a sensor gives ([Reading]).
//
// # Why not os.ReadFile
//
// On a Jetson Orin a powered-down thermal zone answers EAGAIN. Go's os package
// registers kernfs files with the netpoller, takes EAGAIN for "wait", and parks
// the goroutine for ever. So every read here is a raw open with O_NONBLOCK and a
// raw read: EAGAIN becomes [schema.QualityOffline]. The descriptor is kept and
// read again with pread, which costs about a tenth of os.ReadFile and makes no
// garbage.
//
// # Concurrency
//
// A Root may be shared by all. A File and a [Sensor] belong to one goroutine at a
// time; package schedule gives each sensor its own.
package device
