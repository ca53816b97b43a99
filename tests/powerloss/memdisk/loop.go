// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package memdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// loopWait bounds the wait for a free loop device: others may use them, too.
const loopWait = 30 * time.Second

// Missing says in one line what this machine lacks to run memdisk; "" is nothing.
func Missing() string {
	if os.Getuid() != 0 {
		return "needs root to mount disks"
	}
	for _, path := range []string{"/dev/fuse", "/dev/loop-control"} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return "needs " + path + ": " + err.Error()
		}
		_ = f.Close() // only looked whether it opens
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		return "needs mkfs.ext4 (package e2fsprogs)"
	}
	return ""
}

// Format makes an ext4 of 4 KiB blocks with a small journal on the disk.
func (d *Disk) Format() error {
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-J", "size=4",
		"-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", d.Path()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return nil
}

// Mount attaches a loop device to the disk and mounts its file system at dir,
// which replays its journal. data are the file system's own options.
func (d *Disk) Mount(dir, data string) error { return Mount(d.Path(), dir, 0, data) }

// Mount is [Disk.Mount] for a disk that another process serves, by its path.
func Mount(path, dir string, flags uintptr, data string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("mount disk: %w", err)
	}
	defer f.Close()
	loop, err := attach(f)
	if err != nil {
		return err
	}
	defer loop.Close() // the mount holds it from then on; unmounting frees the device
	if err := unix.Mount(loop.Name(), dir, "ext4", flags|unix.MS_NOATIME, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", loop.Name(), dir, err)
	}
	return nil
}

// attach finds a free loop device and puts the file under it.
func attach(f *os.File) (*os.File, error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop device: %w", err)
	}
	defer ctl.Close()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		loop, err := tryAttach(ctl, f)
		if err == nil {
			return loop, nil
		}
		// Somebody else was faster, or all are in use and no node is there for more.
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENXIO) || time.Since(start) > loopWait {
			return nil, fmt.Errorf("loop device: %w", err)
		}
	}
}

func tryAttach(ctl, f *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, err
	}
	loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	cfg := unix.LoopConfig{Fd: uint32(f.Fd())}
	cfg.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &cfg); err != nil {
		_ = loop.Close() // not ours
		return nil, err
	}
	return loop, nil
}

// busyFor is how long an unmount is tried again while the file system is busy. A process
// that is just being started holds all open files of its parent until its exec: some
// milliseconds. A file or map that is leaked keeps it busy for good.
const busyFor = 3 * time.Second

// Unmount takes the file system at dir away; it fails where something in it is
// still open or mapped.
func Unmount(dir string) error {
	for end := time.Now().Add(busyFor); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Unmount(dir, 0)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}

// Discard takes the file system at dir away even where something is still open.
func Discard(dir string) { _ = unix.Unmount(dir, unix.MNT_DETACH) }
