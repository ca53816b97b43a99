// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"fulmar/schema"
)

// BoardClock makes the clock that fulmard has too: of the kernel's boot id, under
// root ("/"), and CLOCK_BOOTTIME.
func BoardClock(root string) (schema.Clock, error) {
	path := filepath.Join(root, "proc/sys/kernel/random/boot_id")
	b, err := os.ReadFile(path)
	if err != nil {
		return schema.Clock{}, fmt.Errorf("read boot id: %w", err)
	}
	id, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""))
	if err != nil || len(id) != 16 {
		return schema.Clock{}, fmt.Errorf("read boot id: %s holds %d bytes that are none", path, len(b))
	}
	return schema.BootClock(binary.BigEndian.Uint64(id)), nil
}
