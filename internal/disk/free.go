// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"fmt"
	"syscall"
)

// Free tells how many bytes of a folder's file system are free for this process.
func Free(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	block := max(int64(st.Bsize), 1)
	return int64(min(st.Bavail, uint64(1)<<62/uint64(block))) * block, nil
}
