// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package foreign runs programs of another processor on this machine: QEMU's user
// emulation, registered with the kernel in a namespace of its own, so that nothing is
// registered for the machine, and nothing is left when the program has ended.
//
// It wants root, Linux 6.7 (from there on each user namespace has its own binfmt_misc),
// and the package qemu-user-static.
package foreign

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

//go:embed enter.sh
var enter string

// elf is how the kernel knows a program of arm64: the ELF magic, 64 bit, little
// endian, an executable or a shared object, machine 0xb7. F opens the emulator when it
// is registered, so that it is found inside any root.
const elf = `:fulmar-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00` +
	`:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F`

// Cpuinfo is what the emulated processor's /proc/cpuinfo says: QEMU shows the host's,
// and ONNX Runtime 1.30 dies at load where an arm64 program reads one of an x86
// (measured: SIGSEGV in dlopen). The words are those of a Cortex-A57,
// QEMU's own default, once for each processor of this machine.
func Cpuinfo() string {
	text := ""
	for i := range runtime.NumCPU() {
		text += fmt.Sprintf("processor\t: %d\nBogoMIPS\t: 125.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid\n"+
			"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd07\nCPU revision\t: 0\n\n", i)
	}
	return text
}

// Room is where a program runs.
type Room struct {
	// Root is the program's /, with this machine's devices, a /proc of its own and an
	// empty /run. "" stays in this machine's.
	Root string
	// Binds are folders of this machine that are seen under the same path in Root.
	Binds []string
	// Layer throws away what the program changes in Root; it is kept in memory meanwhile.
	Layer bool
}

// Command makes a command of the room, killed when ctx ends. Its programs may be arm64
// ones. It sees its own processes only, and all of them end with it. As root of its
// namespace it may change owners and modes of files, not make device nodes.
func (r Room) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", enter, "enter", name}, args...)...)
	cmd.Env = append(os.Environ(), "FOREIGN_ELF="+elf, "FOREIGN_CPUINFO="+Cpuinfo(),
		"FOREIGN_ROOT="+r.Root, "FOREIGN_BINDS="+strings.Join(r.Binds, "\n"))
	if r.Layer {
		cmd.Env = append(cmd.Env, "FOREIGN_LAYER=1")
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Pdeathsig: syscall.SIGKILL,
	}
	return cmd
}

// Check says why [Command] cannot work here, in one line that says what to do.
func Check() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("programs of arm64 want root here: they get a namespace of their own")
	}
	if runtime.GOARCH == "arm64" {
		return nil
	}
	if _, err := os.Stat("/usr/bin/qemu-aarch64-static"); err != nil {
		return fmt.Errorf("no emulator of arm64: %w; type: cross/need qemu-user-static", err)
	}
	out, err := Room{}.Command(context.Background(), "true").CombinedOutput()
	if err != nil {
		return fmt.Errorf("register the emulator in a namespace: %w: %s(wants Linux 6.7)", err, out)
	}
	return nil
}
