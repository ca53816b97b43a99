// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package anchor

import (
	"log/slog"
	"math/rand/v2"

	"fulmar/device"
	"fulmar/schema"
)

// BootClock reads the kernel's boot; a kernel that does not tell it gives a
// random boot, so that two runs are never taken for one.
func BootClock(root device.Root, log *slog.Logger) (_ schema.Clock, known bool) {
	boot, err := device.BootID(root)
	if err != nil {
		boot = rand.Uint64()
		log.Warn("boot id not read, using a random one", "err", err)
	}
	return schema.BootClock(boot), err == nil
}
