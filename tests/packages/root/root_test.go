// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package root_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/tests/packages/root"
	"fulmar/tests/vm"
)

// system is a Debian 12 root with a layer of the test's own.
func system(t *testing.T, mib int) (r *root.Root, base string) {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "needs root")
	}
	if os.Getenv("FULMAR_PACKAGES") == "" {
		t.Skip("type make test-packages: a system to install in takes minutes to make")
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		skip(t, "needs debootstrap; type: cross/need debootstrap")
	}
	base, err := vm.Root(t.Context(), "../../../.cache", "bookworm", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	r, err = root.Mount(base, t.TempDir(), mib)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, base
}

// skip skips, but not where make test-packages asks for these tests.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("FULMAR_PACKAGES") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func TestRun(t *testing.T) {
	t.Parallel()
	r, base := system(t, 64)
	out, err := r.Run(t.Context(), "sh", "-c", "cut -d. -f1 /etc/debian_version; echo $$; ls /proc | grep -c '^[0-9]'; touch /made")
	if err != nil {
		t.Fatal(err)
	}
	if f := strings.Fields(out); len(f) != 3 || f[0] != "12" || f[1] != "1" {
		t.Errorf("said %q, wants Debian 12 and process 1", out)
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "made")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(base, "made")); err == nil {
		t.Error("the layer wrote through to the system below")
	}
	if _, err := r.Run(t.Context(), "sh", "-c", "echo because >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "because") {
		t.Errorf("a failure says %v, wants its last words", err)
	}
}

// TestKill: what a killed command started is gone with it.
func TestKill(t *testing.T) {
	t.Parallel()
	r, _ := system(t, 64)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := r.Command(ctx, "sh", "-c", "(while :; do echo x >>/beat; sleep 0.02; done) & touch /up; wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	beat := filepath.Join(r.Dir, "beat")
	size := func() int64 {
		st, err := os.Stat(beat)
		if err != nil {
			return 0
		}
		return st.Size()
	}
	for deadline := time.Now().Add(20 * time.Second); size() == 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if size() == 0 {
		t.Fatal("the command did not begin")
	}
	cancel()
	_ = cmd.Wait()
	was := size()
	time.Sleep(200 * time.Millisecond)
	if size() != was {
		t.Error("a process of the killed command still writes")
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	r, _ := system(t, 8)
	out, err := r.Run(t.Context(), "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=20")
	if err == nil || !strings.Contains(out, "No space left") {
		t.Fatalf("20 MiB on a disk of 8: %v %s", err, out)
	}
	if err := r.Resize(64); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Free(); err != nil || n < 50 {
		t.Errorf("%d MiB free, %v", n, err)
	}
	if _, err := r.Run(t.Context(), "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=20"); err != nil {
		t.Error(err)
	}
}
