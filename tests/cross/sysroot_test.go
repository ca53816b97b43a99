// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cross

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeSysroot lays the script beside pins of our own and one small package, so that it
// runs in full without a network. It returns the folder and the package.
func fakeSysroot(t *testing.T) (dir, deb string) {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("no dpkg-deb, so not a Debian")
		}
		t.Skip("no dpkg-deb, so not a Debian")
	}
	dir = filepath.Join(t.TempDir(), "with space")
	copyTo(t, dir, "cross/sysroot/fetch", "cross/need")
	tree := filepath.Join(t.TempDir(), "tree")
	for path, text := range map[string]string{
		"DEBIAN/control": "Package: libx\nVersion: 1:2-3\nArchitecture: arm64\nMaintainer: a <a@example.org>\nDescription: x\n",
		"lib/libx.so.1":  "the library",
	} {
		full := filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(tree, "usr/lib/deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/lib/libx.so.1", filepath.Join(tree, "usr/lib/deep/libx.so")); err != nil {
		t.Fatal(err)
	}
	debs := filepath.Join(dir, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		t.Fatal(err)
	}
	deb = filepath.Join(debs, "libx_1%3a2-3_arm64.deb")
	if out, err := sh(t, ".", nil, "dpkg-deb", "--root-owner-group", "-b", tree, deb); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	pin(t, dir, deb)
	return dir, deb
}

func pin(t *testing.T, dir, deb string) {
	t.Helper()
	b, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("# pins\narm64 libx 1:2-3 %x\n", sha256.Sum256(b))
	if err := os.WriteFile(filepath.Join(dir, "cross/sysroot/pins"), []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestSysroot(t *testing.T) {
	t.Parallel()
	dir, deb := fakeSysroot(t)
	env := []string{"FULMAR_SYSROOT_DEBS=" + filepath.Dir(deb)}
	if out, err := sh(t, dir, env, "cross/sysroot/fetch", "arm64"); err != nil {
		t.Fatalf("fetch: %v\n%s", err, out)
	}
	root := filepath.Join(dir, ".cache/sysroot/debian11-arm64")
	link, err := os.Readlink(filepath.Join(root, "usr/lib/deep/libx.so"))
	if err != nil || link != "../../../lib/libx.so.1" {
		t.Errorf("the link is %q, %v; it must stay inside the sysroot", link, err)
	}
	// Once there, nothing is asked of anyone.
	if out, err := sh(t, dir, []string{"FULMAR_SYSROOT_DEBS=/nonexistent"}, "cross/sysroot/fetch", "arm64"); err != nil || out != "" {
		t.Errorf("the second run: %v %q", err, out)
	}
	// Other pins make it anew, in the same place.
	if err := os.WriteFile(filepath.Join(root, "stale"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	f := filepath.Join(dir, "cross/sysroot/pins")
	b, err := os.ReadFile(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f, append(b, "# later\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := sh(t, dir, env, "cross/sysroot/fetch", "arm64"); err != nil {
		t.Fatalf("with other pins: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(root, "stale")); err == nil {
		t.Error("a file of the older sysroot is still there")
	}
	alone(t, dir)
}

// alone fails if the script left a folder that it works in.
func alone(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, ".cache/sysroot/.fetch*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestSysrootRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, arch, env, want string
		spoil                 func(t *testing.T, dir, deb string)
	}{
		{"another package than the pinned one", "arm64", "", "another SHA-256", func(t *testing.T, _, deb string) {
			f, err := os.OpenFile(deb, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString("x"); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}},
		{"another version than the pinned one", "arm64", "", "libx 1:2-3 for arm64 is not there", func(t *testing.T, _, deb string) {
			if err := os.Rename(deb, strings.Replace(deb, "2-3", "2-4", 1)); err != nil {
				t.Fatal(err)
			}
		}},
		{"a folder without packages", "arm64", "FULMAR_SYSROOT_DEBS=/nonexistent", "has no packages for arm64", nil},
		{"a machine without pins", "riscv64", "", "no packages are pinned for riscv64", nil},
		// No network: apt reads this one from the disk, and it is empty.
		{"a mirror that has moved it", "arm64", "FULMAR_SYSROOT_DEBS=\x00FULMAR_DEBIAN_MIRROR=file:///nonexistent", "FULMAR_DEBIAN_MIRROR", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, deb := fakeSysroot(t)
			if c.spoil != nil {
				c.spoil(t, dir, deb)
			}
			env := []string{"FULMAR_SYSROOT_DEBS=" + filepath.Dir(deb)}
			if c.env != "" {
				env = strings.Split(c.env, "\x00")
			}
			out, err := sh(t, dir, env, "cross/sysroot/fetch", c.arch)
			if err == nil || !strings.Contains(out, c.want) {
				t.Errorf("fetch: %v\n%s\nwants %q", err, out, c.want)
			}
			if _, err := os.Stat(filepath.Join(dir, ".cache/sysroot/debian11-arm64")); err == nil {
				t.Error("there is a sysroot all the same")
			}
			alone(t, dir)
		})
	}
}
