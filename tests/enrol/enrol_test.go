// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/tpm/tpmtest"
)

// TestFresh: a board that ran without a fleet is in, with all that it kept, and asking
// twice changes nothing.
func TestFresh(t *testing.T) {
	b := newBench(t, "")
	b.startByHand()
	b.until("fulmard without a fleet", func() bool { return strings.Contains(b.read("log"), "not enrolled yet") })

	s := b.must(0, b.enrol(b.fleet("token"), "--board", "dock-1", "--json"))
	r := b.result(s)
	if !r.OK || r.Already || r.Board != "dock-1" || r.Fleet != b.site.HTTPS || s.talk != "" {
		t.Errorf("%+v, talk %q", r, s.talk)
	}
	if got := names(r); got != "fulmard ok, config ok, address ok, fleet ok, written ok, started ok, key ok, certificate ok, link ok, record ok" {
		t.Error(got)
	}
	t.Logf("from fulmar enrol to the first record at the fleet: %d ms", r.TookMs)
	if r.TookMs > 30_000 {
		t.Errorf("%d ms", r.TookMs)
	}
	if b.arrived("dock-1") == 0 {
		t.Error("the fleet has no record")
	}
	if b.read("join-token") != "" {
		t.Error("the token is not emptied")
	}
	if st, err := os.Stat(filepath.Join(b.dir, "fulmard.d/10-enrolment.yaml")); err != nil || st.Mode().Perm() != 0o640 {
		t.Error(st, err)
	}
	calls := b.read("calls")
	b.must(0, b.enrol(b.fleet("token")), "Enrolled already: this board is dock-1 of "+b.site.HTTPS, "its link is up", "Nothing was changed")
	b.must(1, b.enrol(b.fleet("token"), "--board", "dock-2"), "already enrolled", "its name is dock-1, not dock-2", "--again")
	b.must(1, b.enrol(b.fleet("token"), "--fleet", "other.example:1"), "already enrolled", "its fleet is "+b.site.HTTPS)
	if b.read("calls") != calls {
		t.Error("an enrolled board was started anew")
	}
}

// TestAgain: another enrolment keeps name and key; one that fails leaves the board as
// it was.
func TestAgain(t *testing.T) {
	b := newBench(t, "")
	b.must(0, b.enrol(b.fleet("token"), "--board", "dock-1"))
	key := b.identity("board.key")
	first := b.identity("identity.json")
	other := &bench{t, newSite(t, filepath.Join(filepath.Dir(b.dir), "other"), b.bin), "", b.bin, ""}
	drop := b.read("fulmard.d/10-enrolment.yaml")
	b.must(1, b.enrol(unknown(other.fleet("token")), "--again"), "the fleet refuses the token", "unknown", "[FLT0602]\n", "What was before is put back")
	if got := b.read("fulmard.d/10-enrolment.yaml"); got != drop {
		t.Errorf("the drop-in is %s", got)
	}
	if b.identity("identity.json") != first || b.identity("board.key") != key || b.read("join-token") != "" {
		t.Error("the identity of before is not there")
	}
	n := b.arrived("dock-1")
	b.until("records after the failure", func() bool { return b.arrived("dock-1") > n })
	b.must(1, b.enrol(b.fleet("token"), "--again", "--board", "dock-2"), "this disk holds the records of dock-1")
	b.must(0, b.enrol(b.fleet("token", "--board", "dock-1"), "--again"), "This board is dock-1")
	if b.identity("identity.json") == first || b.identity("board.key") != key {
		t.Error("wants a new certificate for the same key")
	}
}

func (b *bench) identity(name string) string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.data, "identity", name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// TestWrong: what is wrong with a token or an address is found before anything is
// changed.
func TestWrong(t *testing.T) {
	b := newBench(t, "")
	token := b.fleet("token", "--boards", "9")
	part := strings.SplitN(token, "_", 4)
	with := func(i int, s string) string {
		p := append([]string{}, part...)
		p[i] = s
		return strings.Join(p, "_")
	}
	other := with(2, strings.Repeat("ab", 32))
	pin := b.fleet("pin")
	b.must(1, b.enrol(token[:40]), "this is no join token", "fulmar-fleet token")
	b.must(1, b.enrol(other), "not the fleet of this token", "abababab", "fingerprint")
	if r := b.result(b.enrol(other, "--json")); r.OK || r.Failure == nil || !strings.Contains(r.Failure.Because, "abababab") {
		t.Errorf("%+v", r)
	}
	b.must(6, b.enrol(with(3, "127.0.0.1:1")), "does not answer at 127.0.0.1:1", "refused", "[FLT0601]\n")
	b.must(6, b.enrol(token, "--fleet", "no-such-host.invalid:1"), "no-such-host.invalid was not found")
	b.must(6, b.enrol(token, "--fleet", b.plain()), "is no fleet")
	b.must(1, b.enrol(token, "--fleet", b.detour()), "does not go by that name", "hosts")
	b.must(2, b.enrol(strings.Join(part[:3], "_")), "does not say where its fleet is")
	b.must(2, b.enrol("", "--pin", "12"), "--pin is 64 hex digits")
	b.must(2, b.enrol(other, "--pin", pin), "name different fleets")
	b.must(2, b.enrol(""), "no terminal")
	b.must(2, b.enrol(token, "--board", "Dock 1"), "--board")
	b.site.Fleet.Kill()
	b.must(6, b.enrol(token), "does not answer at "+b.site.HTTPS)
	b.untouched()
	if b.pid() != 0 {
		t.Error("fulmard was started")
	}
}

// unknown is a token that no fleet ever made.
func unknown(token string) string {
	p := strings.Split(token, "_")
	p[1] = strings.Repeat("A", len(p[1]))
	return strings.Join(p, "_")
}

// TestRefused: a token that the fleet does not take is told with the fleet's reason, and
// the board is as before.
func TestRefused(t *testing.T) {
	b := newBench(t, "")
	used := b.fleet("token", "--boards", "1", "--for", "1h")
	expired := b.fleet("token", "--for", "1s")
	b.must(0, b.enrol(used, "--board", "dock-1"))
	second := b.second()
	time.Sleep(1100 * time.Millisecond) // its life
	for _, token := range []string{used, expired, unknown(used)} {
		second.must(1, second.enrol(token, "--board", "dock-2"), "the fleet refuses the token", "used up, expired", "fulmar-fleet token", "What was before is put back")
		second.untouched()
	}
	second.must(21, second.enrol(b.fleet("token"), "--board", "dock-1", "--timeout", "20s"), "another board uses this name", "approve dock-1 --fingerprint", "by itself then")
	second.must(0, second.enrol(b.fleet("token"), "--board", "dock-2"))
	b.fleet("revoke", "dock-2")
	second.must(1, second.enrol(b.fleet("token"), "--again"), "this board was revoked")
}

// TestTPM: the key is made in the TPM.
func TestTPM(t *testing.T) {
	tpmtest.Need(t, "swtpm")
	chip := tpmtest.Start(t)
	b := newBench(t, "key: {mode: auto}\ntpm: {path: \""+chip.Path()+"\"}\n")
	b.must(0, b.enrol(b.fleet("token"), "--board", "dock-1"), "in the TPM (virtual), which it never leaves", "trust ek-first-use", "stored by the fleet")
}

// TestNoTPM: a board that must have one says that it waits for it.
func TestNoTPM(t *testing.T) {
	b := newBench(t, "key: {mode: tpm}\ntpm: {path: /none/tpmrm0}\n")
	b.must(1, b.enrol(b.fleet("token"), "--timeout", "20s"), "no key within 20s", "TPM", "fulmar tpm info")
}

// TestNoSpace: a full disk is told, and nothing is half written.
func TestNoSpace(t *testing.T) {
	b := newBench(t, "")
	if os.Geteuid() != 0 {
		t.Skip("mounting wants root")
	}
	dir := filepath.Join(b.dir, "fulmard.d")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k,nr_inodes=2"); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	b.must(1, b.enrol(b.fleet("token")), "could not be written; nothing is changed", "no space left on device", "df -h")
	b.untouched()
}

// TestConfig: a config that cannot be used, or that says something else, is told.
func TestConfig(t *testing.T) {
	b := newBench(t, "")
	token := b.fleet("token")
	good := b.read("fulmard.yaml")
	b.write("fulmard.yaml", good+"spol: {}\n", 0o640)
	b.must(1, b.enrol(token), "the config cannot be used; nothing was changed", `unknown key "spol"`)
	b.write("fulmard.yaml", good+"board: a\nbroker: {address: 'b:1'}\n", 0o640)
	b.must(1, b.enrol(token), "broker.address in "+filepath.Join(b.dir, "fulmard.yaml"))
	b.write("fulmard.yaml", good, 0o640)
	if err := os.Mkdir(filepath.Join(b.dir, "fulmard.d"), 0o750); err != nil {
		t.Fatal(err)
	}
	b.write("fulmard.d/50-site.yaml", "fleet: {address: 'elsewhere:1'}\n", 0o640)
	b.must(1, b.enrol(token), "the fleet's address would be elsewhere:1", "50-site.yaml is read after")
	b.untouched()
	b.write("fulmard.d/50-site.yaml", "", 0o640)
	b.write("broken", "", 0o600)
	b.must(1, b.enrol(token), "fulmard did not start", "Job for fulmard.service failed")
	if err := os.Remove(filepath.Join(b.dir, "broken")); err != nil {
		t.Fatal(err)
	}
	b.must(0, b.enrol(token, "--board", "dock-1"), "This board is dock-1")
}

// TestByHand: without systemd it says what to do, and waits for that.
func TestByHand(t *testing.T) {
	b := newBench(t, "")
	b.write("systemctl", "#!/bin/sh\necho 'System has not been booted with systemd as init system (PID 1).' >&2; exit 1\n", 0o755)
	token := b.fleet("token")
	go func() {
		for b.read("fulmard.d/10-enrolment.yaml") == "(none)" {
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(time.Second)
		b.startByHand()
	}()
	b.must(0, b.enrol(token, "--board", "dock-1"), "There is no systemd here: start fulmard anew yourself", "This board is dock-1")
}

// TestApproval: without a token a person lets the board in, who compares what both show.
func TestApproval(t *testing.T) {
	b := newBench(t, "")
	pin := b.fleet("pin")
	s := b.must(21, b.enrol("", "--pin", pin, "--fleet", b.site.HTTPS, "--board", "dock-1", "--timeout", "4s"), "a person has to let this board in", "[FLT0603]\n", "fulmar board approve", "by itself")
	_, shown, ok := strings.Cut(s.talk, "its fingerprint is ")
	if shown, _, _ = strings.Cut(shown, "\n"); !ok || !strings.Contains(b.fleet("pending"), shown) {
		t.Fatalf("%q is not what the fleet shows: %s", shown, b.fleet("pending"))
	}
	done := make(chan said, 1)
	go func() { done <- b.enrol("", "--pin", pin, "--fleet", b.site.HTTPS, "--board", "dock-1") }()
	b.until("the board that asks", func() bool { return strings.Contains(b.fleet("pending"), "dock-1") })
	finger := strings.Fields(b.fleet("pending"))[2]
	b.fleet("approve", "dock-1", "--fingerprint", finger)
	b.must(0, <-done, "This board is dock-1")
	b.must(0, b.enrol("", "--pin", pin), "Enrolled already: this board is dock-1")
}
