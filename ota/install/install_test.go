// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package install_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/install"
	"fulmar/ota/install/installtest"
	"fulmar/ota/install/models"
	"fulmar/ota/install/rootfs"
	"fulmar/ota/release"
	"fulmar/tests/loopdisk"
)

func TestSet(t *testing.T) {
	t.Parallel()
	m, err := models.Open(models.Options{Dir: filepath.Join(t.TempDir(), "models")})
	if err != nil {
		t.Fatal(err)
	}
	own, site := &rootfs.Rootfs{}, &rootfs.Rootfs{}
	s := &install.Set{Rootfs: own, Models: m}
	if i, err := s.Of("rootfs"); err != nil || i != own {
		t.Error(i, err)
	}
	s.Site = map[string]ota.Installer{"rootfs": site}
	if i, err := s.Of("rootfs"); err != nil || i != site {
		t.Error(i, err)
	}
	if i, err := s.Of("model/parcels"); err != nil || i == nil {
		t.Error(i, err)
	}
	for _, name := range []string{"agent", "worker", "config", "kernel", "", "model/../x"} {
		if i, err := s.Of(name); err == nil || i != nil {
			t.Errorf("%s: %v, %v", name, i, err)
		}
	}
}

// place is a model on a real disk.
type place struct {
	t *testing.T
	o models.Options
	m *models.Models
}

func (p *place) Installer() ota.Installer {
	i, err := p.m.Installer("model/parcels")
	if err != nil {
		p.t.Fatal(err)
	}
	return i
}

func (p *place) Restart(ota.Restart) {
	var err error
	if p.m, err = models.Open(p.o); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) Component(version string) (*release.Component, map[string]string) {
	size := 1 << 20
	if version == "2.0" {
		size = 24 << 20
	}
	return installtest.Files(p.t, "model/parcels", version, map[string]string{"model.yaml": version, "net.onnx": strings.Repeat(version+" ", size/4)})
}

func (p *place) Runs() string {
	dir, version, _ := p.m.Path("parcels")
	if b, err := os.ReadFile(filepath.Join(dir, "model.yaml")); dir != "" && (err != nil || string(b) != version) {
		return fmt.Sprint(string(b), err)
	}
	return version
}

// TestFullDisk: a real ext4 without room: before the first byte is written, and in the middle
// of it, as somebody else takes what was free.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"mkfs.ext4", "mount"} {
		if _, err := exec.LookPath(tool); err != nil || os.Geteuid() != 0 {
			if os.Getenv("CI") == "true" {
				t.Fatalf("wants root and %s: %v", tool, err)
			}
			t.Skipf("wants root and %s: %v", tool, err)
		}
	}
	d, err := loopdisk.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	balloon := filepath.Join(d.Dir, "balloon")
	// leave takes all but so many bytes, of what everybody may have or of what root may have too.
	leave := func(left int64, root bool) func() {
		f, err := os.Create(balloon)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var st unix.Statfs_t
		if err := unix.Statfs(d.Dir, &st); err != nil {
			t.Fatal(err)
		}
		room := st.Bavail
		if root {
			room = st.Bfree
		}
		if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(room)*st.Bsize-left); err != nil && !errors.Is(err, unix.ENOSPC) { // then all of it is taken
			t.Fatal(err)
		}
		return func() {
			if err := os.Remove(balloon); err != nil {
				t.Fatal(err)
			}
		}
	}
	fresh := func(name string, dk disk.Disk) *place {
		p := &place{t: t, o: models.Options{Dir: filepath.Join(d.Dir, name), Disk: dk}}
		p.Restart(ota.RestartNone)
		return p
	}
	t.Run("before", func(t *testing.T) {
		p := fresh("before", nil)
		p.t = t
		installtest.Full(t, p, "2.0", func() func() { return leave(8<<20, false) })
	})
	t.Run("meanwhile", func(t *testing.T) {
		thief := &thief{}
		p := fresh("meanwhile", thief)
		p.t = t
		installtest.Full(t, p, "2.0", func() func() {
			thief.takes = func() func() { return leave(16<<20, true) }
			free := leave(100<<20, false)
			return func() { free(); thief.takes = nil }
		})
	})
}

// thief is a disk on which somebody takes the room once a file was begun.
type thief struct {
	disk.OS
	takes func() func()
}

func (d *thief) Create(path string, mode os.FileMode) (disk.File, error) {
	if d.takes != nil && filepath.Base(path) == "net.onnx" {
		d.takes()
	}
	return d.OS.Create(path, mode)
}
