// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package disk

import "os"

func datasync(f *os.File) error { return f.Sync() }
