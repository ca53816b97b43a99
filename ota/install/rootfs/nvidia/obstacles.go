// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package nvidia

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"fulmar/internal/disk"
)

// obstacles are the reasons why the other system must not be written or booted now, each
// with what to do. to is the slot that is meant.
func (b *Board) obstacles(s slots, to int) (out []string) {
	add := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	if _, err := os.Stat(b.path(efivars)); err != nil {
		add("there are no variables of a UEFI (%v): this wants a Jetson with L4T 35 or newer", err)
		return out
	}
	switch level, err := b.variable(varLevel); {
	case errors.Is(err, fs.ErrNotExist):
		add("the firmware has no RootfsRedundancyLevel: A/B of the root file system is off, and set-active-boot-slot would do nothing; flash the board with ROOTFS_AB=1")
	case err != nil:
		add("RootfsRedundancyLevel: %v", err)
	case level != 1:
		add("RootfsRedundancyLevel is %d: A/B of the root file system is off, and set-active-boot-slot would do nothing; flash the board with ROOTFS_AB=1", level)
	}
	for n := range 2 {
		name := varStatus + slotName(n) + "-" + nvidiaGUID
		switch v, err := b.variable(name); {
		case err != nil:
			add("the status of slot %s cannot be read: %v", slotName(n), err)
		case v&0xff == unbootable:
			add("slot %s is marked unbootable (0xFF) for good, the firmware would go past it; when its system is known to be good or about to be written: fulmar-rootfs mend", slotName(n))
		case v != 0:
			add("slot %s has status %d: a change of it is under way", slotName(n), v)
		}
		if s.retry[n] == 0 {
			add("slot %s has no tries left (retry_count 0): with both at 0 the firmware ends in its shell; restart the board once, and look with nvbootctrl -t rootfs dump-slots-info", slotName(n))
		}
	}
	out = append(out, b.capsuleObstacles(s)...)
	if s.active != s.current {
		add("slot %s is set to be booted next and %s runs: somebody else's change is under way; restart the board first", slotName(s.active), slotName(s.current))
	}
	return append(out, b.placeObstacles(to)...)
}

// capsuleObstacles: an update of the firmware that has not come to its end.
func (b *Board) capsuleObstacles(s slots) (out []string) {
	if names, _ := filepath.Glob(filepath.Join(b.path(esp), capsuleDir, "*")); len(names) > 0 {
		out = append(out, fmt.Sprintf("a firmware capsule waits in %s: the next boot takes it and chooses the slot; restart the board first", filepath.Join(esp, capsuleDir)))
	}
	if v, err := b.variable(varIndications); err == nil && v&fileCapsule != 0 {
		out = append(out, "OsIndications says that a firmware capsule is to be taken: restart the board first")
	}
	if s.capsule > 1 {
		out = append(out, fmt.Sprintf("the last firmware capsule failed (status %d): the boot chains may differ; see nvbootctrl dump-slots-info", s.capsule))
	}
	return out
}

// placeObstacles: partitions that are not what they have to be.
func (b *Board) placeObstacles(to int) (out []string) {
	_, number, _, err := b.device(to)
	if err != nil {
		return []string{err.Error()}
	}
	root, err := b.rootDevice()
	switch {
	case err != nil:
		out = append(out, err.Error())
	case root == number:
		out = append(out, fmt.Sprintf("/ lies on the partition of slot %s, though the firmware says that the other one runs: it would be written over", slotName(to)))
	}
	// What is kept has to be the same whichever system runs.
	if at, err := numberOf(b.State); err != nil {
		out = append(out, err.Error())
	} else if at == root {
		out = append(out, fmt.Sprintf("%s lies on the root file system, which is another one after the switch: put /var/lib/fulmar, /var/lib/fulmard and it on a partition of their own (docs/rootfs.md)", b.State))
	}
	return out
}

// espFree is the room for a capsule, in bytes.
func (b *Board) espFree() (int64, error) {
	free, _, _, err := disk.Free(b.path(esp))
	if err != nil {
		return 0, fmt.Errorf("the ESP: %w", err)
	}
	return max(free-espReserve, 0), nil
}
