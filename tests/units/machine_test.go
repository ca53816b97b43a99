// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package units

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"fulmar/tests/vm"
)

// board is a machine with everything installed as the packages do, and a fleet beside it.
type board struct {
	*vm.Machine
	t *testing.T
}

// sh runs a script in the machine and gives what it printed.
func (b *board) sh(script string) string {
	b.t.Helper()
	out, err := b.ShellFor(b.t.Context(), 4*time.Minute, script)
	if err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// until runs a script every second until it ends with 0.
func (b *board) until(what string, limit time.Duration, script string) {
	b.t.Helper()
	begin := time.Now()
	for {
		r, err := b.Run(b.t.Context(), vm.Cmd{Args: []string{"/bin/sh", "-euc", script}})
		if err == nil && r.Code == 0 {
			b.t.Logf("%s: after %.1f s", what, time.Since(begin).Seconds())
			return
		}
		if time.Since(begin) > limit {
			b.t.Fatalf("%s: not within %v: %v %s%s\n%s", what, limit, err, r.Stdout, r.Stderr, b.sh("journalctl -n 60 --no-pager -o short"))
		}
		time.Sleep(time.Second)
	}
}

// install is what the packages do.
const install = `
install -D -m 0755 /root/in/fulmar-launch /usr/lib/fulmar/fulmar-launch
for p in fulmard fulmar-infer; do install -D -m 0755 /root/in/$p /usr/lib/fulmar/seed/$p; done
install -m 0644 /root/in/libonnxruntime.so.1 /usr/lib/fulmar/seed/
echo 0.0.1 >/usr/lib/fulmar/seed/release
install -m 0755 /root/in/fulmar-fleet /usr/bin/fulmar-fleet
install -m 0755 /root/in/series /usr/lib/fulmar/series
mkdir -p /etc/fulmar/fulmard.d /usr/lib/sysusers.d /usr/lib/tmpfiles.d
cd /root/in/systemd
cp *.service *.socket *.timer /lib/systemd/system/
for u in agent fleet; do cp fulmar-$u.sysusers.conf /usr/lib/sysusers.d/fulmar-$u.conf; done
cp fulmar-agent.tmpfiles.conf /usr/lib/tmpfiles.d/fulmar-agent.conf
cp 60-fulmar.rules /lib/udev/rules.d/
systemd-sysusers fulmar-agent.conf fulmar-fleet.conf
systemd-tmpfiles --create fulmar-agent.conf
setpriv --reuid=fulmar --regid=fulmar --init-groups /usr/lib/fulmar/fulmar-launch seed
systemctl daemon-reload
echo 'hosts: [localhost, 127.0.0.1]' >/etc/fulmar/fleet.yaml
cat >/etc/fulmar/fulmard.yaml <<X
board: b1
fleet: {address: "127.0.0.1:8443", token_file: /etc/fulmar/join-token}
link: {keep_alive: 10s, reconnect_window: 1s}
infer: {threads: 1}
models:
  - {name: parcels, path: "builtin:parcels"}
cameras:
  - {name: belt, kind: scene, fps: 1, seed: 7, density: 1, model: parcels, event_every: 1s, snapshot_every: 3s}
X
chgrp fulmar /etc/fulmar/fulmard.yaml; chgrp fulmar-fleet /etc/fulmar/fleet.yaml; chmod 640 /etc/fulmar/*.yaml
`

// newBoard boots a machine where FULMAR_VM says that there is time for one: amd64, with
// the system of FULMAR_VM_SUITE. The programs are those of `make cross`.
func newBoard(t *testing.T) *board {
	t.Helper()
	arch := os.Getenv("FULMAR_VM")
	if arch == "" {
		t.Skip("FULMAR_VM is not set to amd64 or arm64: no machine is booted")
	}
	suite := os.Getenv("FULMAR_VM_SUITE")
	if suite == "" {
		suite = "bookworm"
	}
	cache, err := filepath.Abs("../../.cache")
	if err != nil {
		t.Fatal(err)
	}
	programs := filepath.Join("../../out/cross", arch)
	if _, err := os.Stat(programs); err != nil {
		t.Fatalf("%v: make cross", err)
	}
	series := filepath.Join(t.TempDir(), "series")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", series, "./series")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m, err := vm.Start(t.Context(), vm.Options{Dir: t.TempDir(), Cache: cache, Suite: suite, Arch: arch, Memory: 1536})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	b := &board{m, t}
	b.sh("mkdir -p /root/in/systemd")
	put := func(from, to string) {
		if err := m.Put(context.Background(), from, to, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"fulmar-launch", "fulmard", "fulmar-infer", "fulmar-fleet", "libonnxruntime.so.1"} {
		put(filepath.Join(programs, p), "/root/in/"+p)
	}
	put(series, "/root/in/series")
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no units: %v", err)
	}
	for _, f := range files {
		put(f, "/root/in/systemd/"+filepath.Base(f))
	}
	b.sh(install)
	t.Log(b.sh("systemctl --version | head -n 1"))
	return b
}

// The whole life of the units on a real systemd.
func TestMachine(t *testing.T) {
	b := newBoard(t)
	b.serves()
	b.isBounded()
	b.sees("the same sensors inside the sandbox as outside")
	b.watched()
	b.worker()
	b.comesBack()
	b.stops()
}

// serves: a join token of root alone is enough, a picture crosses from the worker's user
// to the fleet, and only the users that should run do.
func (b *board) serves() {
	b.sh("systemctl start fulmar-fleet")
	b.sh(`umask 077; setpriv --reuid=fulmar-fleet --regid=fulmar-fleet --clear-groups fulmar-fleet token --boards 1 --for 1h >/etc/fulmar/join-token
systemctl start fulmar-infer.socket fulmar-build.socket fulmard`)
	b.until("READY", time.Minute, "[ $(systemctl is-active fulmard) = active ]")
	b.until("enrolled with a token that only root may read", time.Minute, "journalctl -u fulmard -o cat | grep -q 'msg=enrolled'")
	b.until("a picture at the fleet", 3*time.Minute, "find /var/lib/fulmar-fleet/pictures -name '*.jpg' | grep -q .")
	b.until("a picture removed by fulmard", time.Minute, "journalctl -q -u fulmar-infer --no-pager | grep -q 'model ready'; [ $(find /var/lib/fulmard/pictures -type f | wc -l) -le 2 ]")
	for _, want := range []string{"fulmard fulmar", "fulmar-infer fulmar-infer", "fulmar-fleet fulmar-fleet"} {
		if got := b.sh("ps -eo comm=,user:20= | grep '^fulmar' | tr -s ' ' | sort -u"); !strings.Contains(got, want) || strings.Contains(got, "root") {
			b.t.Errorf("no %q, or root, in\n%s", want, got)
		}
	}
	inside := b.sh(`P=$(systemctl show -p MainPID --value fulmar-infer); ls /proc/$P/root/var/lib/fulmard; ls /proc/$P/root/etc/fulmar`)
	if inside != "pictures" {
		b.t.Errorf("of the board's data and secrets the worker sees %q, wants pictures alone", inside)
	}
}

// isBounded: exposure as the running systemd says it.
func (b *board) isBounded() {
	for unit, most := range map[string]float64{"fulmard.service": 1.5, "fulmar-infer.service": 3, "fulmar-fleet.service": 1.5} {
		got, err := exposure(b.sh("systemd-analyze security --no-pager " + unit))
		if err != nil || got > most {
			b.t.Errorf("%s: exposure %.1f, wants at most %.1f, %v", unit, got, most, err)
		}
		b.t.Logf("%s: exposure %.1f", unit, got)
	}
}

// sees compares what is sampled in fulmard's sandbox with what root samples.
func (b *board) sees(what string) {
	out := b.sh(`sed -e 's|^ExecStart=.*|ExecStart=/usr/lib/fulmar/series|; s/^Type=notify/Type=oneshot/; /^Restart/d; /^Watchdog/d; /^StateDir/d; /^NotifyAccess/d; /Credential=/d' \
	-e 's/^ReadWritePaths.*/StandardOutput=file:\/run\/series/' /lib/systemd/system/fulmard.service >/run/systemd/system/series.service
systemctl daemon-reload; systemctl start series.service
/usr/lib/fulmar/series | sort >/run/outside; sort /run/series | diff /run/outside - && wc -l </run/outside`)
	n, err := strconv.Atoi(out)
	if err != nil || n < 25 {
		b.t.Errorf("%s: %s", what, out)
	}
	b.t.Logf("%s: %d lines", what, n)
}

// watched: a fulmard whose sampler stands still is killed and started again, and the
// worker does not notice.
func (b *board) watched() {
	before := b.sh("systemctl show -p MainPID --value fulmard; systemctl show -p MainPID --value fulmar-infer")
	pids := strings.Fields(before)
	b.sh("kill -STOP " + pids[0])
	b.until("killed by the watchdog", 2*time.Minute, "journalctl -u fulmard -o cat | grep -q 'Watchdog timeout'")
	b.until("fulmard back", 3*time.Minute, "P=$(systemctl show -p MainPID --value fulmard); [ $P != 0 ] && [ $P != "+pids[0]+" ] && [ $(systemctl is-active fulmard) = active ]")
	if now := b.sh("systemctl show -p MainPID --value fulmar-infer"); now != pids[1] {
		b.t.Errorf("the worker was %s and is %s", pids[1], now)
	}
}

// worker: a killed one is back; one that takes too much memory goes without fulmard.
func (b *board) worker() {
	fulmard := b.sh("systemctl show -p MainPID --value fulmard")
	pid := b.sh("systemctl show -p MainPID --value fulmar-infer")
	b.sh("kill -KILL " + pid)
	b.until("a killed worker back", time.Minute, "P=$(systemctl show -p MainPID --value fulmar-infer); [ $P != 0 ] && [ $P != "+pid+" ]")
	b.sh(`mkdir -p /run/systemd/system/fulmar-infer.service.d
printf '[Service]\nMemoryMax=30M\nMemorySwapMax=0\n' >/run/systemd/system/fulmar-infer.service.d/test.conf
systemctl daemon-reload; systemctl restart fulmar-infer`)
	b.until("a worker over its memory killed", 3*time.Minute, "journalctl -u fulmar-infer -o cat | grep -q 'killed by the OOM killer'")
	b.sh("rm -r /run/systemd/system/fulmar-infer.service.d; systemctl daemon-reload; systemctl restart fulmar-infer")
	if now := b.sh("systemctl show -p MainPID --value fulmard"); now != fulmard {
		b.t.Errorf("fulmard was %s and is %s", fulmard, now)
	}
}

// comesBack: a fulmard that dies at once is tried six times, rests, and is tried again;
// a stop by hand ends the rest, too.
func (b *board) comesBack() {
	const active = "[ $(systemctl is-active fulmard-retry.timer) = active ]"
	b.sh(`mkdir -p /run/systemd/system/fulmard.service.d /run/systemd/system/fulmard-retry.timer.d
printf '[Unit]\nStartLimitIntervalSec=90\n[Service]\nExecStart=\nExecStart=/bin/false\nType=simple\nRestartSec=1\n' >/run/systemd/system/fulmard.service.d/test.conf
printf '[Timer]\nOnActiveSec=\nOnActiveSec=95s\n' >/run/systemd/system/fulmard-retry.timer.d/test.conf
systemctl daemon-reload; systemctl restart fulmard || true`)
	b.until("the rest begins", 2*time.Minute, active)
	starts := func() int {
		return len(regexp.MustCompile(`Started fulmard`).FindAllString(b.sh("journalctl -u fulmard -o cat --since -8min"), -1))
	}
	before := starts()
	b.until("the rest is over", 3*time.Minute, "! "+active)
	b.until("tried again, and resting again", 2*time.Minute, active)
	if after := starts(); after < before+3 {
		b.t.Errorf("%d starts before the rest, %d after it", before, after)
	}
	b.sh("systemctl stop fulmard")
	if out := b.sh("systemctl is-active fulmard-retry.timer || true"); out == "active" {
		b.t.Error("fulmard was stopped by hand and its timer goes on")
	}
	b.sh("rm -r /run/systemd/system/fulmard.service.d /run/systemd/system/fulmard-retry.timer.d; systemctl daemon-reload; systemctl reset-failed fulmard; systemctl start fulmard")
}

// stops: all end in order, in time.
func (b *board) stops() {
	b.until("the worker answers", 2*time.Minute, "journalctl -u fulmard -o cat | tail -n 20 | grep -q 'worker connected'")
	for _, units := range []string{"fulmard", "fulmar-infer.socket fulmar-infer", "fulmar-fleet"} {
		begin := time.Now()
		b.sh("systemctl stop " + units)
		took := time.Since(begin)
		b.t.Logf("stop of %s: %.1f s", units, took.Seconds())
		if took > 20*time.Second {
			b.t.Errorf("stop of %s took %v", units, took)
		}
	}
	for _, unit := range []string{"fulmard", "fulmar-infer", "fulmar-fleet"} {
		if out := b.sh("systemctl show -p Result --value " + unit); out != "success" {
			b.t.Errorf("%s ended with %s", unit, out)
		}
	}
}
