// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package nvidia

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/install/installtest"
	"fulmar/ota/install/rootfs"
	"fulmar/ota/install/rootfs/wire"
	"fulmar/ota/release"
)

const partitionBytes = 1 << 20

// sim is a Jetson that is a folder: partitions that are files, variables, an nvbootctrl that
// works on them, and a firmware that boots.
type sim struct {
	t     *testing.T
	root  string
	b     *Board
	boots int
	sent  int64 // bytes that were brought in the newest call
	cutAt int64 // bytes after which the connection breaks; 0 never
}

func newSim(t *testing.T) *sim {
	t.Helper()
	root := t.TempDir()
	s := &sim{t: t, root: root}
	for _, d := range []string{efivars, esp + "/EFI", labels, classBlock + "/p1", classBlock + "/p2", "/proc/self", filepath.Dir(bootIDFile), "/usr/sbin", "/usr/bin", "/state"} {
		s.must(os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	for n, p := range []string{"p1", "p2"} {
		s.put("/dev/"+p, bytes.Repeat([]byte{byte(n)}, partitionBytes))
		s.must(os.Symlink(filepath.Join(root, "dev", p), filepath.Join(root, labels, partition(n))))
		s.put(classBlock+"/"+p+"/dev", []byte(fmt.Sprintf("259:%d\n", n+1)))
		s.set("RootfsRetryCount"+slotName(n), 3)
		s.set(varStatus+slotName(n), 0)
	}
	s.set("RootfsRedundancyLevel", 1)
	s.put("/capsule-status", []byte("0"))
	script, err := os.ReadFile("testdata/nvbootctrl.sh")
	s.must(err)
	s.put(nvbootctrl, bytes.ReplaceAll(script, []byte("@ROOT@"), []byte(root)))
	s.put(systemctl, []byte("#!/bin/sh\n: >"+root+"/reboot\n"))
	for _, p := range []string{nvbootctrl, systemctl} {
		s.must(os.Chmod(filepath.Join(root, p), 0o755))
	}
	s.came(0)
	s.b = &Board{Root: root, State: filepath.Join(root, "state"), Disk: disk.OS{}}
	return s
}

func (s *sim) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *sim) put(path string, b []byte) {
	s.t.Helper()
	s.must(os.MkdirAll(filepath.Join(s.root, filepath.Dir(path)), 0o755))
	s.must(os.WriteFile(filepath.Join(s.root, path), b, 0o644))
}

func (s *sim) set(name string, v uint32) {
	s.t.Helper()
	s.put(filepath.Join(efivars, name+"-"+nvidiaGUID), binary.LittleEndian.AppendUint32([]byte{7, 0, 0, 0}, v))
}

func (s *sim) get(name string) int {
	raw, err := os.ReadFile(filepath.Join(s.root, efivars, name+"-"+nvidiaGUID))
	if err != nil || len(raw) != 8 {
		return -1
	}
	return int(binary.LittleEndian.Uint32(raw[4:]))
}

// came: a system came up.
func (s *sim) came(n int) {
	s.boots++
	s.set("BootChainFwCurrent", uint32(n))
	s.put(mountinfo, []byte(fmt.Sprintf("20 1 0:5 / /proc rw - proc proc rw\n25 1 259:%d / / rw - ext4 /dev/p%d rw\n", n+1, n+1)))
	s.put(bootIDFile, []byte(fmt.Sprintf("boot-%d\n", s.boots)))
}

// reboot is what the firmware does, until a system is up.
func (s *sim) reboot() {
	s.t.Helper()
	next := s.get("BootChainFwCurrent")
	if n := s.get("BootChainFwNext"); n >= 0 {
		next = n
		s.must(os.Remove(filepath.Join(s.root, efivars, "BootChainFwNext-"+nvidiaGUID)))
	}
	file := filepath.Join(s.root, esp, capsuleDir, capsule)
	if _, err := os.Stat(file); err == nil {
		s.must(os.Remove(file))
		s.must(os.Remove(filepath.Join(s.root, efivars, varIndications)))
		s.put("/capsule-status", []byte("1"))
		next = 1 - next
	}
	for range 2 {
		name := slotName(next)
		dead := strings.HasPrefix(s.system(next), "DEAD")
		if s.get(varStatus+name) != unbootable && !dead {
			s.set("RootfsRetryCount"+name, 3) // by NVIDIA's service, when the system is up
			s.came(next)
			return
		}
		s.set("RootfsRetryCount"+name, 0)
		s.set(varStatus+name, unbootable)
		next = 1 - next
	}
	s.t.Fatal("neither system comes up")
}

// system is what is on a slot's partition.
func (s *sim) system(n int) string {
	raw, err := os.ReadFile(filepath.Join(s.root, "dev", fmt.Sprintf("p%d", n+1)))
	s.must(err)
	text, _, _ := strings.Cut(string(raw), "\n")
	return text
}

// bootUp is the start of the board up to fulmard.
func (s *sim) bootUp() {
	s.t.Helper()
	for range 3 {
		s.reboot()
		_, err := s.b.Boot(s.t.Context())
		s.must(err)
		if os.Remove(filepath.Join(s.root, "reboot")) != nil {
			return
		}
	}
	s.t.Fatal("it reboots for ever")
}

// counted counts what is written to fulmar-rootfs, and may break.
type counted struct {
	net.Conn
	s *sim
}

func (c counted) Write(b []byte) (int, error) {
	c.s.sent += int64(len(b))
	if c.s.cutAt > 0 && c.s.sent > c.s.cutAt {
		_ = c.Close()
	}
	return c.Conn.Write(b)
}

func (s *sim) Installer() ota.Installer {
	return &rootfs.Rootfs{Dial: func(context.Context) (net.Conn, error) {
		here, there := net.Pipe()
		s.sent = 0
		go func() {
			_ = s.b.Serve(context.Background(), there, there)
			_ = there.Close()
		}()
		return counted{here, s}, nil
	}}
}

func (s *sim) Restart(r ota.Restart) {
	if r == ota.RestartMachine {
		// A power cut may have come before it.
		if err := s.Installer().(ota.Restarter).Restart(s.t.Context(), "an update"); err == nil {
			s.must(os.Remove(filepath.Join(s.root, "reboot")))
		} else if !strings.Contains(err.Error(), "no restart is due") {
			s.t.Fatal(err)
		}
		s.bootUp()
	}
}

func (s *sim) Component(version string) (*release.Component, map[string]string) {
	return s.image(version, "image")
}

func (s *sim) image(version, what string) (*release.Component, map[string]string) {
	return installtest.Files(s.t, "rootfs", version, map[string]string{"system.img": what + " " + version + "\n" + strings.Repeat(version, 60_000)})
}

func (s *sim) Runs() string {
	v, _ := strings.CutPrefix(s.system(s.get("BootChainFwCurrent")), "image ")
	if strings.HasPrefix(v, "\x00") || strings.HasPrefix(v, "\x01") {
		return ""
	}
	return v
}

func TestConformance(t *testing.T) {
	t.Parallel()
	installtest.Run(t, func(t *testing.T) installtest.Subject { return newSim(t) })
}

// staged stages and gives the token; switched goes on to the restart.
func (s *sim) staged(version, what string) (string, error) {
	c, paths := s.image(version, what)
	return s.Installer().Stage(s.t.Context(), c, paths)
}

func (s *sim) switched(version, what string) string {
	s.t.Helper()
	token, err := s.staged(version, what)
	s.must(err)
	r, err := s.Installer().Switch(s.t.Context(), token)
	if err != nil || r != ota.RestartMachine {
		s.t.Fatalf("%v, %v", r, err)
	}
	return token
}

func (s *sim) look(token string) (ota.Standing, string) {
	s.t.Helper()
	st, why, err := s.Installer().Look(s.t.Context(), token)
	s.must(err)
	return st, why
}

// TestRestart: the machine is taken down where another system is to be booted, and not because
// somebody asks.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := newSim(t)
	refused := func(when string) {
		t.Helper()
		err := s.Installer().(ota.Restarter).Restart(t.Context(), "for fun")
		if _, there := os.Stat(filepath.Join(s.root, "reboot")); err == nil || !strings.Contains(err.Error(), "no restart is due") || there == nil {
			t.Errorf("%s: %v, %v", when, err, there)
		}
	}
	refused("nothing was staged")
	_, err := s.staged("1.0", "image")
	s.must(err)
	refused("staged")
	token := s.switched("1.0", "image")
	asked := func(when string) {
		t.Helper()
		s.must(s.Installer().(ota.Restarter).Restart(t.Context(), when))
		s.must(os.Remove(filepath.Join(s.root, "reboot")))
		s.bootUp()
	}
	asked("switched")
	refused("on trial")
	if r, err := s.Installer().Back(t.Context(), token, "sick"); err != nil || r != ota.RestartMachine {
		t.Fatal(r, err)
	}
	asked("on the way back")
	refused("gone back")
}

// TestTraps: what cost others a board or an update is refused before anything is written.
func TestTraps(t *testing.T) {
	t.Parallel()
	self, err := numberOf(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(*sim)
		want  string
	}{
		// WendyOS-Builder 177: with the root file system on NVMe the level was not set, and
		// each switch did nothing.
		"redundancy level is not there": {func(s *sim) { s.must(os.Remove(filepath.Join(s.root, efivars, varLevel))) }, "ROOTFS_AB=1"},
		"redundancy level is 0":         {func(s *sim) { s.set("RootfsRedundancyLevel", 0) }, "ROOTFS_AB=1"},
		// WendyOS-Builder 41: 0xFF stays for ever, and the firmware goes past the slot in silence.
		"the other slot is unbootable": {func(s *sim) { s.set(varStatus+"B", unbootable) }, "fulmar-rootfs mend"},
		"this slot is unbootable":      {func(s *sim) { s.set(varStatus+"A", unbootable) }, "slot A is marked unbootable"},
		// edk2-nvidia 22: at 0 the firmware ends in its shell, and somebody has to go there.
		"no tries left for the other":   {func(s *sim) { s.set("RootfsRetryCountB", 0) }, "no tries left"},
		"no tries left for this one":    {func(s *sim) { s.set("RootfsRetryCountA", 0) }, "no tries left"},
		"a change is under way":         {func(s *sim) { s.set("BootChainFwNext", 1) }, "somebody else's change"},
		"an update of it is under way":  {func(s *sim) { s.set(varStatus+"B", 1) }, "status 1"},
		"the variables are damaged":     {func(s *sim) { s.put(efivars+"/"+varLevel, []byte{7, 0}) }, "flashed anew"}, // home2 1164
		"no variables of a UEFI at all": {func(s *sim) { s.must(os.RemoveAll(filepath.Join(s.root, efivars))) }, "no two slots"},
		// tegra-demo-distro 368: a capsule on its way decides by itself what is booted.
		"a capsule waits":            {func(s *sim) { s.put(esp+"/"+capsuleDir+"/"+capsule, []byte("x")) }, "a firmware capsule waits"},
		"a capsule was asked for":    {func(s *sim) { s.must(s.b.setVariable(varIndications, fileCapsule, 8)) }, "OsIndications"},
		"the last capsule failed":    {func(s *sim) { s.put("/capsule-status", []byte("3")) }, "failed (status 3)"},
		"it runs from the other one": {func(s *sim) { s.put(mountinfo, []byte("25 1 259:2 / / rw - ext4 /dev/p2 rw\n")) }, "would be written over"},
		// What is kept must be the same whichever system runs.
		"its state is on the root": {func(s *sim) { s.put(mountinfo, []byte("25 1 "+self+" / / rw - ext4 /dev/x rw\n")) }, "a partition of their own"},
		"no second partition":      {func(s *sim) { s.must(os.Remove(filepath.Join(s.root, labels, "APP_b"))) }, "partition of slot B"},
		"nvbootctrl is broken":     {func(s *sim) { s.put("/broken", nil) }, "can not open"},
		"nvbootctrl is not there":  {func(s *sim) { s.must(os.Remove(filepath.Join(s.root, nvbootctrl))) }, "nvbootctrl"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSim(t)
			before, err := os.ReadFile(filepath.Join(s.root, "dev", "p2"))
			s.must(err)
			c.spoil(s)
			token, err := s.staged("1.0", "image")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("staged %q, %v; wants %q", token, err, c.want)
			}
			if after, err := os.ReadFile(filepath.Join(s.root, "dev", "p2")); err != nil || !bytes.Equal(before, after) {
				t.Error("it was written all the same")
			}
		})
	}
}

// TestTrapsAtTheSwitch: what came up after it was staged keeps the switch back too, and a
// tool that does nothing in silence is found out.
func TestTrapsAtTheSwitch(t *testing.T) {
	t.Parallel()
	s := newSim(t)
	token, err := s.staged("1.0", "image")
	s.must(err)
	s.set(varStatus+"B", unbootable)
	if r, err := s.Installer().Switch(t.Context(), token); err == nil || !strings.Contains(err.Error(), "mend") {
		t.Errorf("%v, %v", r, err)
	}
	did, err := s.b.Mend(t.Context())
	if err != nil || s.get(varStatus+"B") != 0 || !strings.Contains(did, "slot B") {
		t.Errorf("%s, %v", did, err)
	}
	s.put("/deaf", nil)
	if r, err := s.Installer().Switch(t.Context(), token); err == nil || !strings.Contains(err.Error(), "did nothing") {
		t.Errorf("%v, %v", r, err)
	}
	if st, why := s.look(token); st != ota.NotYet || why != "" {
		t.Errorf("%v, %s", st, why)
	}
	s.must(os.Remove(filepath.Join(s.root, "deaf")))
	if r, err := s.Installer().Switch(t.Context(), token); err != nil || r != ota.RestartMachine {
		t.Errorf("%v, %v", r, err)
	}
	// Not restarted yet: it can still be called off.
	if r, err := s.Installer().Back(t.Context(), token, "aborted"); err != nil || r != ota.RestartNone {
		t.Errorf("%v, %v", r, err)
	}
	s.bootUp()
	if st, why := s.look(token); st != ota.Fallen || why != "aborted" || s.Runs() != "" {
		t.Errorf("%v, %s", st, why)
	}
}

// TestFirmwareGoesBack: a system that never comes up; the firmware goes back, and it is known
// why: success is not claimed before the restart was seen (hawkbit 3185).
func TestFirmwareGoesBack(t *testing.T) {
	t.Parallel()
	s := newSim(t)
	token := s.switched("1.0", "DEAD")
	if st, why := s.look(token); st != ota.NotYet || !strings.Contains(why, "start again") {
		t.Errorf("before the restart: %v, %s", st, why)
	}
	s.bootUp()
	st, why := s.look(token)
	if st != ota.Fallen || !strings.Contains(why, "the firmware went back from slot B to A (retry_count 0, unbootable)") || s.Runs() != "" {
		t.Errorf("%v, %q", st, why)
	}
	// It is marked for good, which a person has to look at.
	if _, err := s.staged("2.0", "image"); err == nil || !strings.Contains(err.Error(), "mend") {
		t.Error(err)
	}
	_, err := s.b.Mend(t.Context())
	s.must(err)
	s.set("RootfsRetryCountB", 3)
	token = s.switched("2.0", "image")
	s.bootUp()
	if st, _ := s.look(token); st != ota.OnTrial || s.Runs() != "2.0" {
		t.Errorf("%v, runs %s", st, s.Runs())
	}
}

// TestPowerLossInTheFirstBoot (meta-mender-community 454): a new system whose boots end before
// anybody could confirm it is not tried for ever, and not taken for good.
func TestPowerLossInTheFirstBoot(t *testing.T) {
	t.Parallel()
	s := newSim(t)
	token := s.switched("1.0", "image")
	for n := range MaxBoots {
		s.bootUp()
		if st, why := s.look(token); st != ota.OnTrial || why != fmt.Sprintf("boot %d of %d", n+1, MaxBoots) || s.Runs() != "1.0" {
			t.Fatalf("boot %d: %v, %s, runs %s", n, st, why, s.Runs())
		}
	}
	s.bootUp() // the fourth: counted, told, restarted
	if st, why := s.look(token); st != ota.Fallen || !strings.Contains(why, "not confirmed in 3 boots") || s.Runs() != "" {
		t.Errorf("%v, %s, runs %s", st, why, s.Runs())
	}
	s.bootUp()
	if st, _ := s.look(token); st != ota.Fallen || s.Runs() != "" {
		t.Errorf("%v, runs %s", st, s.Runs())
	}
}

// TestNothingToGoBackTo: the old system cannot be booted any more: the new one, that nobody
// confirmed, goes on and can be, and the board is not restarted for ever.
func TestNothingToGoBackTo(t *testing.T) {
	t.Parallel()
	s := newSim(t)
	token := s.switched("1.0", "image")
	s.set("RootfsRetryCountA", 0)
	s.set(varStatus+"A", unbootable)
	for range MaxBoots + 2 {
		s.bootUp()
	}
	st, why := s.look(token)
	if st != ota.OnTrial || !strings.Contains(why, "slot A cannot be booted") || s.Runs() != "1.0" {
		t.Errorf("%v, %q, runs %s", st, why, s.Runs())
	}
	if r, err := s.Installer().Back(t.Context(), token, "bad"); err == nil || r != ota.RestartNone {
		t.Errorf("%v, %v", r, err)
	}
	s.must(s.Installer().Confirm(t.Context(), token))
	if st, _ := s.look(token); st != ota.InForce {
		t.Error(st)
	}
}

// TestNotProven: the firmware says one slot, and / is the other's.
func TestNotProven(t *testing.T) {
	t.Parallel()
	s := newSim(t)
	token := s.switched("1.0", "image")
	s.bootUp()
	s.put(mountinfo, []byte("25 1 259:1 / / rw - ext4 /dev/p1 rw\n"))
	if _, _, err := s.Installer().Look(t.Context(), token); err == nil || !strings.Contains(err.Error(), "not on its partition") {
		t.Error(err)
	}
	if err := s.Installer().Confirm(t.Context(), token); err == nil {
		t.Error("confirmed")
	}
	if st, err := s.b.Status(t.Context()); err != nil || st.Proven || st.Current != "B" {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestResume: a connection that breaks loses what was not synced, and no more.
func TestResume(t *testing.T) {
	t.Parallel()
	s := newSim(t)
	c, paths := s.Component("1.0")
	s.cutAt = 70_000
	if token, err := s.Installer().Stage(t.Context(), c, paths); err == nil {
		t.Fatalf("%s", token)
	}
	s.cutAt = 0
	token, err := s.Installer().Stage(t.Context(), c, paths)
	s.must(err)
	first := s.sent
	if again, err := s.Installer().Stage(t.Context(), c, paths); err != nil || again != token || s.sent > 1000 {
		t.Errorf("staged again: %v, %d bytes sent, %d before", err, s.sent, first)
	}
	// Written and changed behind our back: it is read, found and written anew.
	path := filepath.Join(s.root, "dev", "p2")
	raw, err := os.ReadFile(path)
	s.must(err)
	raw[99_999] ^= 4
	s.must(os.WriteFile(path, raw, 0o644))
	if _, err := s.Installer().Stage(t.Context(), c, paths); err != nil || s.sent < c.Files[0].Size {
		t.Errorf("%v, %d bytes sent", err, s.sent)
	}
	// An image that does not fit.
	big, paths := installtest.Files(t, "rootfs", "9.0", map[string]string{"system.img": strings.Repeat("x", partitionBytes+1)})
	if _, err := s.Installer().Stage(t.Context(), big, paths); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Error(err)
	}
	if need, free, err := s.Installer().Space(t.Context(), big); err != nil || need != partitionBytes+1 || free != partitionBytes {
		t.Errorf("%d of %d, %v", need, free, err)
	}
	for _, files := range []map[string]string{{"a.img": "1", "b.img": "2"}, {"a.txt": "1"}, {"x.Cap": "1"}} {
		bad, paths := installtest.Files(t, "rootfs", "9.1", files)
		if _, err := s.Installer().Stage(t.Context(), bad, paths); err == nil {
			t.Errorf("%v was staged", files)
		}
	}
}

// TestCapsule: the firmware takes it, and switches by itself; before that it can be withdrawn.
func TestCapsule(t *testing.T) {
	t.Parallel()
	s := newSim(t)
	waits := func() bool {
		_, err := os.Stat(filepath.Join(s.root, esp, capsuleDir, capsule))
		v, _ := s.b.variable(varIndications)
		if (err == nil) != (v&fileCapsule != 0) {
			t.Error("the capsule and the word about it do not fit")
		}
		return err == nil
	}
	stage := func(version string) string {
		t.Helper()
		c, paths := installtest.Files(t, "rootfs", version, map[string]string{"system.img": "image " + version + "\n", "bl.Cap": "firmware " + version})
		token, err := s.Installer().Stage(t.Context(), c, paths)
		s.must(err)
		again, err := s.Installer().Stage(t.Context(), c, paths)
		s.must(err)
		r, err := s.Installer().Switch(t.Context(), token)
		if err != nil || r != ota.RestartMachine || again != token || !waits() {
			t.Fatalf("%v, %v, waits %v", r, err, waits())
		}
		return token
	}
	token := stage("1.0")
	r, err := s.Installer().Back(t.Context(), token, "aborted")
	if err != nil || r != ota.RestartNone || waits() {
		t.Fatalf("%v, %v, waits %v", r, err, waits())
	}
	s.bootUp()
	if s.Runs() != "" {
		t.Error(s.Runs())
	}
	token = stage("1.0")
	s.bootUp()
	if st, _ := s.look(token); st != ota.OnTrial || s.Runs() != "1.0" || waits() {
		t.Errorf("%v, runs %s", st, s.Runs())
	}
	s.must(s.Installer().Confirm(t.Context(), token))
}

// TestCutsOfTheSwitch: the power fails between any two writes of fulmar-rootfs in a switch;
// the board comes up with the old or the new system and the update goes on.
func TestCutsOfTheSwitch(t *testing.T) {
	t.Parallel()
	for at := 0; ; at++ {
		s := newSim(t)
		token, err := s.staged("1.0", "image")
		s.must(err)
		cut := &cutter{at: at}
		s.b.Disk = cut
		_, err = s.Installer().Switch(t.Context(), token)
		s.b.Disk = disk.OS{}
		if err == nil {
			if at < 4 {
				t.Errorf("only %d points", at)
			}
			return
		}
		s.bootUp()
		st, _ := s.look(token)
		switch {
		case st == ota.NotYet && s.Runs() == "", st == ota.OnTrial && s.Runs() == "1.0":
		default:
			t.Errorf("cut %d: %v, runs %q", at, st, s.Runs())
		}
		r, err := s.Installer().Switch(t.Context(), token)
		s.must(err)
		s.Restart(r)
		if st, _ := s.look(token); st != ota.OnTrial || s.Runs() != "1.0" {
			t.Errorf("cut %d, done over: %v, runs %q", at, st, s.Runs())
		}
	}
}

// cutter is a disk that is gone after some steps.
type cutter struct {
	disk.OS
	at, n int
}

func (c *cutter) Rename(from, to string) error {
	if c.n++; c.n > c.at {
		return fmt.Errorf("cut")
	}
	return c.OS.Rename(from, to)
}

func (c *cutter) SyncDir(path string) error {
	if c.n++; c.n > c.at {
		return fmt.Errorf("cut")
	}
	return c.OS.SyncDir(path)
}

func FuzzSlots(f *testing.F) {
	f.Add([]byte("Current rootfs slot: A\nActive rootfs slot: B\nnum_slots: 2\nslot: 0,             retry_count: 3,             status: normal\nslot: 1,             retry_count: 0,             status: unbootable\n"))
	f.Add([]byte("slot: 0, retry_count: -1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSlots(b); err == nil && (s.current|1 != 1 || s.active|1 != 1 || s.retry[0] < 0 || s.retry[1] < 0) {
			t.Errorf("%q gives %+v", b, s)
		}
		parseCapsule(b)
	})
}

// FuzzRequest: whatever comes over the socket, a board that is fine stays as it is.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{"v":1,"verb":"status"}`, `{"v":1,"verb":"switch","token":"1.0-0123456789abcdef"}`, `{"v":1,"verb":"write","token":"1.0-0123456789abcdef","kind":"image","size":9,"sha256":"00"}`,
		`{"v":1,"verb":"sweep","keep":["x"]}`, `{"v":2}`, `{}`, `[]`,
	} {
		f.Add([]byte(s + "\n"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := wire.ReadRequest(bufio.NewReader(bytes.NewReader(b))); err != nil {
			return
		}
	})
}
