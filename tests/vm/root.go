// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"fulmar/tests/foreign"
)

// kernelSuite is whose kernel every machine boots, whatever its suite: the one whose
// cloud kernel was seen to have NVMe and ext4 built in on both processors.
const kernelSuite = "bookworm"

// packages are what each root has beside Debian's minimal set: what systemd needs to be
// the init of a machine, and what our own packages depend on.
const packages = "systemd-sysv,dbus,udev,kmod,procps,iproute2,adduser,libstdc++6,tzdata"

//go:embed setup.sh
var setup string

// Root gives the folder of a Debian system that can boot, with a kernel in
// /boot/vmlinuz. It is made once in cache (40 s on amd64, 100 to 270 s where the second
// half runs emulated) and must not be changed. more are further packages.
func Root(ctx context.Context, cache, suite, arch string, more ...string) (string, error) {
	want := packages
	for _, p := range more {
		want += "," + p
	}
	// The name holds all that the content depends on, so that a new recipe makes anew.
	sum := sha256.Sum256([]byte(want + "\n" + setup + kernelSuite))
	return once(cache, suite+"-"+arch+"-"+hex.EncodeToString(sum[:4]), func(root string) error {
		if err := bootstrap(ctx, root, suite, arch, want); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", setup, "setup", root, arch, suite, kernelSuite)
		if err := run(cmd); err != nil {
			return fmt.Errorf("set up a root of %s %s: %w", suite, arch, err)
		}
		return nil
	})
}

// Unpacked gives the folder of a Debian system whose packages were unpacked and not
// configured: enough to run a program in, and made in half a minute for any processor.
func Unpacked(ctx context.Context, cache, suite, arch string) (string, error) {
	return once(cache, suite+"-"+arch+"-unpacked", func(root string) error {
		args := []string{"--foreign", "--variant=minbase", "--arch=" + arch, "--include=libstdc++6", suite, root}
		if err := run(exec.CommandContext(ctx, "debootstrap", args...)); err != nil {
			return fmt.Errorf("debootstrap %s %s: %w", suite, arch, err)
		}
		// It unpacks what is required only, and leaves the rest for its second half.
		rest := `cd "$1"; for d in var/cache/apt/archives/*.deb; do dpkg-deb -x "$d" .; done; rm -rf var/cache/apt/archives`
		return run(exec.CommandContext(ctx, "/bin/sh", "-euc", rest, "unpack", root))
	})
}

// once makes cache/roots/name unless it is there. Who wants one that another makes
// meanwhile, in this process or another, waits for it.
func once(cache, name string, fill func(root string) error) (string, error) {
	dir := filepath.Join(cache, "roots", name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".make-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	root := filepath.Join(work, "root") // "/" of somebody, and so readable by all
	if err := errors.Join(os.Mkdir(root, 0o755), fill(root)); err != nil {
		return "", err
	}
	return dir, os.Rename(root, dir)
}

// inMemory is what a system takes while it is made, in MiB; it is made in memory where
// there is twice as much. dpkg flushes each file, which takes minutes on a slow disk.
const inMemory = 2048

// bootstrap unpacks and configures Debian's packages in root.
func bootstrap(ctx context.Context, root, suite, arch, want string) error {
	fast := root + ".memory"
	if arch != runtime.GOARCH || available() < 2*inMemory || os.Mkdir(fast, 0o755) != nil ||
		syscall.Mount("tmpfs", fast, "tmpfs", 0, fmt.Sprintf("mode=0755,size=%dm", inMemory)) != nil {
		return debootstrap(ctx, root, suite, arch, want)
	}
	defer func() { _ = syscall.Unmount(fast, syscall.MNT_DETACH) }()
	if err := debootstrap(ctx, fast, suite, arch, want); err != nil {
		return err
	}
	return run(exec.CommandContext(ctx, "cp", "-a", "--", fast+"/.", root))
}

// available is the memory that could be had now, in MiB; 0 where nobody tells.
func available() (mib int) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "MemAvailable:")
	_, _ = fmt.Sscan(rest, &mib)
	return mib >> 10
}

func debootstrap(ctx context.Context, root, suite, arch, want string) error {
	args := []string{"--variant=minbase", "--arch=" + arch, "--include=" + want, suite, root}
	cmd := exec.CommandContext(ctx, "debootstrap", args...)
	if arch != runtime.GOARCH {
		if err := foreign.Check(); err != nil {
			return err
		}
		cmd = foreign.Room{}.Command(ctx, "debootstrap", args...)
		// debootstrap's word for a place where device nodes cannot be made.
		cmd.Env = append(cmd.Env, "container=lxc")
	}
	if err := run(cmd); err != nil {
		return fmt.Errorf("debootstrap %s %s: %w", suite, arch, err)
	}
	return nil
}

// run gives the last words of a command that failed.
func run(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return fmt.Errorf("%w: %s", err, strings.Join(lines[max(0, len(lines)-8):], "\n"))
}

// lock waits for a file lock, which ends with the process at the latest.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
