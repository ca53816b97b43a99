// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package root runs programs in a small Debian system (one of vm.Root), so that a package
// is installed where its users install it and not on the machine of who builds it. Each
// test works on a layer of its own over the system, in memory, and throws that away. It
// wants root, overlayfs and util-linux. Programs of another architecture want an
// interpreter registered with binfmt_misc (flag F), which is left to the caller.
package root

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Root is a layer over a system.
type Root struct {
	// Dir is where its files are seen.
	Dir     string
	scratch string
	layers  string // the layer and what it lies over, uppermost first, as overlayfs names them
}

// Mount lays an empty layer of at most mib MiB over the system in base. scratch is an
// empty folder for it. When the layer is full, the system's disk is full.
func Mount(base, scratch string, mib int) (*Root, error) { return mount(base, scratch, mib) }

// Again lays another layer over what the system is now; it may not change while that stands.
// Layers lie side by side, not one mount on the other: Linux takes two of those, and where
// tests run in a layer already that is one.
func (r *Root) Again(scratch string, mib int) (*Root, error) { return mount(r.layers, scratch, mib) }

func mount(base, scratch string, mib int) (*Root, error) {
	r := &Root{Dir: filepath.Join(scratch, "root"), scratch: scratch}
	mem := filepath.Join(scratch, "mem")
	if err := errors.Join(os.Mkdir(r.Dir, 0o755), os.Mkdir(mem, 0o755)); err != nil {
		return nil, fmt.Errorf("lay over %s: %w", base, err)
	}
	if err := syscall.Mount("tmpfs", mem, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=755", mib)); err != nil {
		return nil, fmt.Errorf("lay over %s: mount tmpfs: %w", base, err)
	}
	upper, work := filepath.Join(mem, "upper"), filepath.Join(mem, "work")
	r.layers = upper + ":" + base
	err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755))
	if err == nil {
		err = syscall.Mount("overlay", r.Dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", base, upper, work))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lay over %s: %w", base, err), syscall.Unmount(mem, 0))
	}
	if err := r.nodes(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// nodes makes the devices that every program counts on, by the kernel's numbers
// (Documentation/admin-guide/devices.txt); a machine of its own would make them at boot.
func (r *Root) nodes() error {
	if err := os.MkdirAll(filepath.Join(r.Dir, "dev"), 0o755); err != nil {
		return fmt.Errorf("make devices: %w", err)
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9} {
		path := filepath.Join(r.Dir, "dev", name)
		err := unix.Mknod(path, unix.S_IFCHR, int(unix.Mkdev(1, minor)))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make device %s: %w", name, err)
		}
		if err := os.Chmod(path, 0o666); err != nil { // whatever the umask is
			return fmt.Errorf("make device %s: %w", name, err)
		}
	}
	return nil
}

// Resize makes the layer larger or smaller.
func (r *Root) Resize(mib int) error {
	if err := syscall.Mount("", filepath.Join(r.scratch, "mem"), "", syscall.MS_REMOUNT, fmt.Sprintf("size=%dm", mib)); err != nil {
		return fmt.Errorf("resize the layer: %w", err)
	}
	return nil
}

// Free is how many MiB the layer has left.
func (r *Root) Free() (int, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(filepath.Join(r.scratch, "mem"), &st); err != nil {
		return 0, fmt.Errorf("look at the layer: %w", err)
	}
	return int(st.Bavail * uint64(st.Bsize) >> 20), nil
}

// Command is a program in the system: with its own /proc and processes, without a
// network, in English and without questions. It is the first process of its own process
// namespace, so when ctx ends everything that it started is killed at once, as in a
// power cut that spares what was written.
func (r *Root) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "unshare", append([]string{
		"--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child=KILL",
		"--mount-proc=" + filepath.Join(r.Dir, "proc"), "chroot", r.Dir,
	}, args...)...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C",
		"DEBIAN_FRONTEND=noninteractive",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Run runs a program in the system and gives what it said on both outputs. The error has
// the end of that in it.
func (r *Root) Run(ctx context.Context, args ...string) (string, error) {
	out, err := r.Command(ctx, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, last(out, 2000))
	}
	return string(out), nil
}

// Close takes the layer away.
func (r *Root) Close() error {
	// Lazily: a process that was just killed may hold a file for a moment longer.
	if err := errors.Join(syscall.Unmount(r.Dir, syscall.MNT_DETACH), syscall.Unmount(filepath.Join(r.scratch, "mem"), syscall.MNT_DETACH)); err != nil {
		return fmt.Errorf("take the layer away: %w", err)
	}
	return nil
}

func last(b []byte, n int) string {
	return strings.TrimSpace(string(b[max(0, len(b)-n):]))
}
