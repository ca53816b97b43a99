// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "golang.org/x/sys/unix"

// bootTime reads CLOCK_BOOTTIME in nanoseconds; it costs no system call on the
// boards we know (vDSO).
func bootTime() (int64, bool) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano(), err == nil
}
