// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package loopdisk is a disk of its own for a measurement: ext4 on a loop device on
// a file, so that the kernel's count of what the device was given is of nobody else.
// That count has the journal and the tables of the file system in it. It wants root,
// loop devices, and the programs mkfs.ext4 and mount.
package loopdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskBytes is the size of the disk; its file is sparse.
const diskBytes = 4 << 30

// sector is the unit of /sys/block/*/stat, whatever the device's is.
const sector = 512

// Disk is a mounted disk.
type Disk struct {
	Dir   string // where it is mounted
	stat  string // what the kernel counts
	image string
}

// New makes a disk under dir, an empty folder on a real file system, and mounts it
// as systems do by default (relatime, data=ordered, a commit each 5 s). The tables
// are written in full before, so that the kernel does not do so meanwhile.
func New(dir string) (_ *Disk, err error) {
	d := &Disk{Dir: filepath.Join(dir, "mnt"), image: filepath.Join(dir, "image")}
	f, err := os.Create(d.image)
	if err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(d.image)
		}
	}()
	if err := errors.Join(f.Truncate(diskBytes), f.Close(), os.Mkdir(d.Dir, 0o700)); err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	if err := sh("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", d.image); err != nil {
		return nil, err
	}
	if err := sh("mount", "-o", "loop", d.image, d.Dir); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(d.Dir, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("look at disk: %w", err), d.Close())
	}
	d.stat = fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev))
	if _, err := d.Written(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func sh(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// Written brings all that waits in memory to the device and tells how many bytes the
// device was given since it was made.
func (d *Disk) Written() (int64, error) {
	f, err := os.Open(d.Dir)
	if err != nil {
		return 0, fmt.Errorf("look at disk: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return 0, fmt.Errorf("sync disk: %w", err)
	}
	b, err := os.ReadFile(d.stat)
	if err != nil {
		return 0, fmt.Errorf("look at disk: %w", err)
	}
	// Reads, merged, sectors, ms; writes, merged, sectors: Documentation/block/stat.rst.
	var n [7]int64
	if _, err := fmt.Sscan(string(b), &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6]); err != nil {
		return 0, fmt.Errorf("read %s: %w", d.stat, err)
	}
	return n[6] * sector, nil
}

// Close takes the disk away, with all that is on it.
func (d *Disk) Close() error {
	return errors.Join(sh("umount", d.Dir), os.Remove(d.image))
}
