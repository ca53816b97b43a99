// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/tests/vm"
)

// booted is a machine with systemd and the packages of two versions in /debs. FULMAR_VM
// says that there is time for one.
func booted(t *testing.T) *machine {
	t.Helper()
	if os.Getenv("FULMAR_VM") != "amd64" {
		t.Skip("FULMAR_VM is not amd64: no machine is booted")
	}
	dir := debs(t)
	at, err := filepath.Abs(cache)
	if err != nil {
		t.Fatal(err)
	}
	m, err := vm.Start(t.Context(), vm.Options{Dir: t.TempDir(), Cache: at, Suite: "bookworm", Arch: "amd64", Disk: 3 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	b := &machine{m, t}
	b.shell("mkdir /debs")
	for _, v := range []string{v1, v2} {
		for _, n := range []string{"fulmar-agent", "fulmar-fleet"} {
			f := n + "_" + v + "_amd64.deb"
			if err := m.Put(t.Context(), filepath.Join(dir, "debs", f), "/debs/"+f, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.shell("sync")
	return b
}

type machine struct {
	*vm.Machine
	t *testing.T
}

// shell wants a script to go well and gives what it said.
func (m *machine) shell(script string) string {
	m.t.Helper()
	out, err := m.ShellFor(m.t.Context(), 8*time.Minute, script)
	if err != nil {
		m.t.Fatalf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSpace(out)
}

// runs wants the service to be up, as the user fulmar, out of a slot of the version, and
// gives its process.
func (m *machine) runs(version string) string {
	m.t.Helper()
	out := m.shell(`systemctl start fulmard; for i in $(seq 100); do if [ "$(systemctl is-active fulmard || true)" = active ]; then break; fi; sleep 0.2; done
pid=$(systemctl show -P MainPID fulmard); echo $pid $(stat -c %U /proc/$pid) $(readlink /proc/$pid/exe) $(systemctl is-active fulmard || true)`)
	f := strings.Fields(out)
	if len(f) != 4 || f[1] != "fulmar" || !strings.HasPrefix(f[2], "/var/lib/fulmar/slots/"+version+"-") || f[3] != "active" {
		m.t.Fatalf("what runs is %q, wants %s by the user fulmar\n%s", out, version, m.shell("journalctl -u fulmard -n 20 --no-pager"))
	}
	return f[0]
}

// TestSystemd: with a real systemd the packages start, start anew, and stop what they
// should, and leave alone what a person has decided.
func TestSystemd(t *testing.T) {
	m := booted(t)
	begin := time.Now()
	out := m.shell("dpkg -i " + deb("fulmar-agent", v1))
	t.Logf("installed in %v:\n%s", time.Since(begin).Round(100*time.Millisecond), out)
	if got := m.shell("systemctl is-active fulmar-infer.socket fulmar-build.socket fulmard.service || true"); got != "active\nactive\nactive" && got != "active\nactive\nactivating" {
		t.Errorf("after the installation: %q", got)
	}
	first := m.runs(v1)

	m.shell("dpkg -i " + deb("fulmar-agent", v2))
	second := m.runs(v2)
	if first == second {
		t.Error("after the upgrade the same process runs")
	}

	// policy-rc.d says that nothing may be started here.
	m.shell("printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; dpkg -i " + deb("fulmar-agent", v1))
	if got := m.runs(v2); got != second {
		t.Error("policy-rc.d was not obeyed")
	}
	m.shell("rm /usr/sbin/policy-rc.d")

	// A person switched it off.
	m.shell("systemctl disable --now fulmard; dpkg -i " + deb("fulmar-agent", v2))
	if got := m.shell("systemctl is-active fulmard || true; systemctl is-enabled fulmard || true"); got != "inactive\ndisabled" {
		t.Errorf("a service that a person switched off is %q after an upgrade", got)
	}
	m.shell("systemctl enable --now fulmard")
	m.runs(v2)

	m.shell("dpkg --remove fulmar-agent")
	if got := m.shell("pgrep -u fulmar,fulmar-infer || true; systemctl list-units --no-legend 'fulmar*'"); got != "" {
		t.Errorf("after the removal there is %q", got)
	}
	m.shell("dpkg -i " + deb("fulmar-agent", v2))
	m.runs(v2)

	m.shell("dpkg -i " + deb("fulmar-fleet", v1))
	if got := m.shell("systemctl is-active fulmar-fleet || true; systemctl is-enabled fulmar-fleet || true; ls /var/lib/fulmar-fleet"); got != "inactive\ndisabled" {
		t.Errorf("a server that nobody has asked for is %q", got)
	}
	m.shell("systemctl enable --now fulmar-fleet; systemctl is-active fulmar-fleet")
	before := m.shell("systemctl show -P MainPID fulmar-fleet; ls /var/lib/fulmar-fleet | head -n 3")
	m.shell("dpkg -i " + deb("fulmar-fleet", v2) + "; systemctl is-active fulmar-fleet")
	if got := m.shell("systemctl show -P MainPID fulmar-fleet"); strings.HasPrefix(before, got+"\n") {
		t.Error("the upgrade did not start the server anew")
	}
	m.shell("dpkg --purge fulmar-fleet fulmar-agent")
	if got := m.shell("ls -d /var/lib/fulmar* /etc/fulmar* /etc/systemd/system/*/fulmar* 2>/dev/null || true; pgrep -l fulmar || true"); got != "" {
		t.Errorf("after the purge there is %q", got)
	}
}

// TestSystemdRestart: fulmar-rootfs, in the sandbox of its unit, gets a restart of the machine from
// systemd. No slots and no nvbootctrl are there, so a drop-in has systemctl in its place; all
// else of the unit holds.
func TestSystemdRestart(t *testing.T) {
	m := booted(t)
	m.shell("dpkg -i " + deb("fulmar-agent", v1))
	const bootID = "cat /proc/sys/kernel/random/boot_id"
	before := m.shell(bootID)
	m.shell(`d=/etc/systemd/system/fulmar-rootfs@.service.d; mkdir -p $d
printf '[Service]\nStandardInput=null\nStandardOutput=journal\nExecStart=\nExecStart=/usr/bin/systemctl --no-block reboot\n' >$d/try.conf
systemctl daemon-reload; systemctl show -P CapabilityBoundingSet,ProtectSystem fulmar-rootfs@try.service; sync`)
	// The answer may be lost with the machine.
	out, said := m.ShellFor(t.Context(), time.Minute, "systemctl start fulmar-rootfs@try.service; sleep 20; systemctl status --no-pager fulmar-rootfs@try.service")
	if err := m.Restarted(t.Context()); err != nil {
		t.Fatalf("%v; systemctl said %v: %s", err, said, out)
	}
	if after := m.shell(bootID); after == before {
		t.Error("it is the same boot")
	}
	m.runs(v1)
}

// TestPowerCut turns the machine off in the middle of an upgrade, at six points, so that
// what was not yet on its disk is lost. After the boot a whole slot runs as a service,
// before anybody has mended anything.
func TestPowerCut(t *testing.T) {
	m := booted(t)
	m.shell("dpkg -i " + deb("fulmar-agent", v1) + " && sync")
	m.runs(v1)
	from, to := v1, v2
	begin := time.Now()
	m.shell("dpkg -i " + deb("fulmar-agent", to) + " && sync")
	whole := time.Since(begin)
	from, to = to, from
	for i := range 6 {
		m.shell("setsid dpkg -i " + deb("fulmar-agent", to) + " >/dev/null 2>&1 </dev/null &")
		time.Sleep(whole * time.Duration(i+1) / 7) // a point of the upgrade's time, not a wait for anything
		m.Cut()
		if err := m.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		state := m.shell("dpkg-query -W -f '${db:Status-Abbrev} ${Version}' fulmar-agent")
		version := from
		if strings.Contains(m.shell("readlink /var/lib/fulmar/current"), "/"+to+"-") {
			version = to
		}
		m.runs(version)
		m.shell("/usr/lib/fulmar/fulmar-launch status --verify")
		t.Logf("cut %d of an upgrade of %v, from %s to %s: dpkg says %q, %s runs", i, whole.Round(100*time.Millisecond), from, to, state, version)
		m.shell(fmt.Sprintf("dpkg --configure -a >/dev/null 2>&1 || true; dpkg -i %s && sync", deb("fulmar-agent", to)))
		m.runs(to)
		from, to = to, from
	}
}
