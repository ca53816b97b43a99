// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// lie puts a program in the way of the real one.
func (b *board) lie(program, script string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.Dir, "usr/local/bin", program), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// TestNoSpace: an upgrade for which there is no room is refused before anything is
// touched, with how much is missing; with that much more it goes well.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	b := newBoard(t, "bookworm")
	b.run("dpkg", "-i", deb("fulmar-agent", v1))
	free, err := b.Free()
	if err != nil {
		t.Fatal(err)
	}
	size := diskMiB - free + 40
	if err := b.Resize(size); err != nil {
		t.Fatal(err)
	}
	out, err := b.Run(t.Context(), "dpkg", "-i", deb("fulmar-agent", v2))
	missing := regexp.MustCompile(`not enough space on the file system of /usr/lib: (\d+) MiB are needed, (\d+) are free; make room for (\d+) MiB`).FindStringSubmatch(out)
	if err == nil || missing == nil {
		t.Fatalf("with 40 MiB free: %v: %s", err, out)
	}
	b.runs(v1)
	if got := b.state(); got != "ii  "+v1 {
		t.Errorf("dpkg believes %q", got)
	}
	need := 0
	for _, c := range missing[3] {
		need = need*10 + int(c-'0')
	}
	if err := b.Resize(size + need + 1); err != nil {
		t.Fatal(err)
	}
	b.run("dpkg", "-i", deb("fulmar-agent", v2))
	b.runs(v2)
}

// TestNoSpaceFirst is the same for a first installation.
func TestNoSpaceFirst(t *testing.T) {
	t.Parallel()
	b := newBoard(t, "bookworm")
	if err := b.Resize(100); err != nil {
		t.Fatal(err)
	}
	b.fails([]string{"not enough space", "make room for", "nothing was changed"}, "dpkg", "-i", deb("fulmar-agent", v1))
	b.gone("usr/lib/fulmar", "var/lib/fulmar", "etc/fulmar")
}

// TestDiskFills: the disk fills up while dpkg unpacks, or while the slot is copied, in
// spite of the look before (another program was quicker, or df did not tell the truth).
// The old version runs on, and with room again dpkg finishes.
func TestDiskFills(t *testing.T) {
	t.Parallel()
	for name, room := range map[string]int{
		"unpacking": 50,  // less than the package
		"copying":   100, // the package, and not the slot on top of it
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBoard(t, "bookworm")
			b.run("dpkg", "-i", deb("fulmar-agent", v1))
			b.lie("df", `printf 'x\nx 1 1 99999999 1 /\n'`)
			// The system's files lie below the layer, so a file of v1 that dpkg takes away
			// gives its room back, as on any disk.
			free, err := b.Free()
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Resize(diskMiB - free + room); err != nil {
				t.Fatal(err)
			}
			if name == "copying" {
				b.lie("setpriv", `dd if=/dev/zero of=/var/lib/fills bs=1M count=400 2>/dev/null; exec /usr/bin/setpriv "$@"`)
			}
			out, err := b.Run(t.Context(), "dpkg", "-i", deb("fulmar-agent", v2))
			if err == nil {
				t.Fatalf("went well: %s", out)
			}
			t.Logf("%s", out)
			b.runs(v1)
			b.run("rm", "-f", "/usr/local/bin/df", "/usr/local/bin/setpriv", "/var/lib/fills")
			if err := b.Resize(diskMiB); err != nil {
				t.Fatal(err)
			}
			b.heal()
			b.runs(v2)
		})
	}
}

// TestOldSystem: a glibc that fulmar-infer cannot start on is refused before the old
// version is gone, though dpkg would unpack and only then look.
func TestOldSystem(t *testing.T) {
	t.Parallel()
	b := newBoard(t, "bookworm")
	b.run("dpkg", "-i", deb("fulmar-agent", v1))
	b.lie("getconf", "echo glibc 2.27")
	b.fails([]string{"glibc 2.27 is too old, 2.31 or newer is needed", "JetPack 5", "nothing was changed"}, "dpkg", "-i", deb("fulmar-agent", v2))
	b.runs(v1)
}

// TestOtherMachine: the package of a board on a PC.
func TestOtherMachine(t *testing.T) {
	t.Parallel()
	b := newBoard(t, "bookworm")
	if _, err := os.Stat(filepath.Join(top, "out/cross/arm64/fulmar-launch")); err != nil {
		skip(t, "needs what make cross makes for arm64")
	}
	if err := makeVersion(filepath.Join(made.dir, "other"), top, v1, "arm64"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(made.dir, "other/debs/fulmar-agent_"+v1+"_arm64.deb"), filepath.Join(b.Dir, "arm64.deb")); err != nil {
		if err := clone(filepath.Join(made.dir, "other/debs/fulmar-agent_"+v1+"_arm64.deb"), filepath.Join(b.Dir, "arm64.deb")); err != nil {
			t.Fatal(err)
		}
	}
	b.fails([]string{"package architecture (arm64) does not match system (amd64)"}, "dpkg", "-i", "/arm64.deb")
	b.gone("usr/lib/fulmar", "var/lib/fulmar")
}

// TestStepsSay: a step of the installation that fails says so, and what to do.
func TestStepsSay(t *testing.T) {
	t.Parallel()
	b := newBoard(t, "bookworm")
	b.lie("systemd-sysusers", "echo no such luck >&2; exit 1")
	b.fails([]string{"no such luck", "the users fulmar and fulmar-infer could not be made", "sudo dpkg --configure fulmar-agent"}, "dpkg", "-i", deb("fulmar-agent", v1))
	b.run("rm", "/usr/local/bin/systemd-sysusers")
	b.run("dpkg", "--configure", "fulmar-agent")
	b.runs(v1)
}
