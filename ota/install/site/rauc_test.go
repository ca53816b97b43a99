// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package site

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/internal/exetest"
	"fulmar/ota"
	"fulmar/ota/install/installtest"
)

// rauc stands in for RAUC with two slots, A and B, that are files.
const rauc = `#!/bin/sh
set -eu
S=@STATE@/board
booted=$(cat $S/booted)
[ "$booted" = A ] && other=B || other=A
case "$*" in
"status --output-format=shell") echo "RAUC_SYSTEM_COMPATIBLE='x'"; echo "RAUC_SYSTEM_BOOTED_BOOTNAME='$booted'" ;;
"status mark-active booted") echo $booted >$S/active ;;
"status mark-active other") echo $other >$S/active ;;
"status mark-good booted") ;;
"install "*) cp "$2" $S/slot-$other ;;
*) echo "rauc: $*?" >&2; exit 1 ;;
esac
`

// raucBoard is a place whose program is the one of docs/rootfs.md.
type raucBoard struct {
	*place
	boots int
}

func newRauc(t *testing.T) *raucBoard {
	t.Helper()
	doc, err := os.ReadFile("../../../docs/rootfs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(doc), "### RAUC")
	_, script, _ = strings.Cut(script, "```sh\n")
	script, _, ok := strings.Cut(script, "```\n")
	if !ok || strings.Count(script, "/data/rauc") != 1 || strings.Count(script, "/proc/sys/kernel/random/boot_id") != 1 {
		t.Fatal("docs/rootfs.md has no program for RAUC")
	}
	script = strings.ReplaceAll(script, "/data/rauc", "@STATE@")
	script = strings.ReplaceAll(script, "/proc/sys/kernel/random/boot_id", "@STATE@/board/boot_id")
	script = strings.ReplaceAll(script, "rauc status", "@STATE@/board/rauc status")
	script = strings.ReplaceAll(script, "rauc install", "@STATE@/board/rauc install")
	p := newPlace(t, script, "machine")
	b := &raucBoard{place: p}
	board := filepath.Join(p.dir, "state", "board")
	p.must(os.Mkdir(board, 0o777))
	p.must(os.Chmod(board, 0o777))
	p.must(exetest.Write(filepath.Join(board, "rauc"), []byte(strings.ReplaceAll(rauc, "@STATE@", filepath.Join(p.dir, "state"))), 0o755))
	for name, text := range map[string]string{"booted": "A\n", "active": "A\n", "slot-A": "", "slot-B": "", "boot_id": "boot-0\n"} {
		p.must(os.WriteFile(filepath.Join(board, name), []byte(text), 0o666))
		p.must(os.Chmod(filepath.Join(board, name), 0o666))
	}
	return b
}

func (b *raucBoard) board(name string) string {
	text, err := os.ReadFile(filepath.Join(b.dir, "state", "board", name))
	b.must(err)
	return strings.TrimSpace(string(text))
}

func (b *raucBoard) Restart(r ota.Restart) {
	b.manifest("")
	if r != ota.RestartMachine {
		return
	}
	b.boots++
	for name, text := range map[string]string{"booted": b.board("active"), "boot_id": fmt.Sprint("boot-", b.boots)} {
		b.must(os.WriteFile(filepath.Join(b.dir, "state", "board", name), []byte(text+"\n"), 0o666))
	}
}

func (b *raucBoard) Runs() string {
	return strings.TrimPrefix(b.board("slot-"+b.board("booted")), "image ")
}

// TestRauc holds the program of docs/rootfs.md to the suite, and a boot loader that goes back.
func TestRauc(t *testing.T) {
	t.Parallel()
	installtest.Run(t, func(t *testing.T) installtest.Subject { return newRauc(t) })
	b := newRauc(t)
	c, paths := b.Component("1.0")
	token, err := b.Installer().Stage(t.Context(), c, paths)
	b.must(err)
	_, err = b.Installer().Switch(t.Context(), token)
	b.must(err)
	b.must(os.WriteFile(filepath.Join(b.dir, "state", "board", "active"), []byte("A\n"), 0o666)) // the new one did not come up
	b.Restart(ota.RestartMachine)
	if s, why, err := b.Installer().Look(t.Context(), token); s != ota.Fallen || !strings.Contains(why, "went back to slot A") || err != nil {
		t.Errorf("%v, %q, %v", s, why, err)
	}
}
