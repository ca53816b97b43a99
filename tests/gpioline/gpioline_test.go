// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gpioline

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRealKernel boots the machine. FULMAR_VM=arm64 asks for it, as `make test-gpio` does:
// it downloads a kernel, once, and emulates a processor for some seconds.
func TestRealKernel(t *testing.T) {
	if os.Getenv("FULMAR_VM") != "arm64" {
		t.Skip("FULMAR_VM=arm64 is not set; make test-gpio")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	kernel := filepath.Join(root, ".cache/gpioline/vmlinuz-arm64")
	if _, err := os.Stat(kernel); err != nil {
		do(t, nil, "./kernel.sh", kernel)
	}
	dir := t.TempDir()
	arm := []string{"CGO_ENABLED=0", "GOARCH=arm64"}
	do(t, arm, "go", "test", "-c", "-o", filepath.Join(dir, "root/gpio.test"), "fulmar/device/output/gpio")
	do(t, arm, "go", "build", "-o", filepath.Join(dir, "root/init"), "./guest")
	do(t, nil, "sh", "-c", "cd '"+dir+"/root' && find . | cpio -o -H newc --quiet >../initrd")

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57", "-m", "512", "-nographic", "-no-reboot",
		"-kernel", kernel, "-initrd", filepath.Join(dir, "initrd"), "-append", "console=ttyAMA0 quiet panic=-1").CombinedOutput()
	if said := string(out); err != nil || !strings.Contains(said, "--- PASS: TestKernel") || !strings.Contains(said, "ended: <nil>") {
		t.Fatalf("%v\n%s", err, said)
	}
}

// do runs a command to its end.
func do(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}
