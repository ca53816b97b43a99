// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package vm boots a Debian machine with systemd for a test, and works in it: commands
// with a code and a bound, files in and out, a power cut, a reboot.
//
//	m, err := vm.Start(ctx, vm.Options{Dir: dir, Cache: cache, Suite: "bookworm", Arch: "amd64"})
//	out, err := m.Shell(ctx, "systemctl is-system-running --wait")
//	defer m.Close()
//
// The machine has no network but the doors that Options.Doors names, and opens none on
// the host: the harness speaks to it over a virtio port. Debian's cloud kernel has ext4
// and NVMe built in, so that it boots without an initrd. Where the host has hardware
// virtualization and runs the same processor, KVM makes it quick; else QEMU emulates.
//
// It wants root (for owners of files in the image), debootstrap, e2fsprogs, kmod, and
// qemu-system-x86 or qemu-system-arm; for arm64 on another processor qemu-user-static.
package vm
