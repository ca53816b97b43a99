// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package arm64

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"fulmar/tests/local"
	"fulmar/tests/vm"
)

// The versions that make test-arm64 packs.
const older, newer = "0.1.0", "0.2.0"

// deb is the path of a package that make test-arm64 made.
func deb(t *testing.T, name, version string) string {
	t.Helper()
	path := filepath.Join(top(t), "out/arm64", fmt.Sprintf("%s_%s_arm64.deb", name, version))
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; run: make test-arm64, which makes it", err)
	}
	return path
}

// cameras is a drop-in that has the worker look at drawn parcels.
const cameras = `models:
  - {name: parcels, path: "builtin:parcels"}
cameras:
  - {name: belt, kind: scene, fps: 2, seed: 7, density: 1, model: parcels, event_every: 200ms, snapshot_every: 2s}
`

// board is a machine and what it was told; its words are kept for a person.
type board struct {
	*vm.Machine
	t     *testing.T
	api   *local.API
	words strings.Builder
}

// say keeps words, and shows them.
func (b *board) say(format string, args ...any) {
	b.t.Helper()
	fmt.Fprintf(&b.words, format+"\n\n", args...)
	b.t.Logf(format, args...)
}

// does runs a step as a person at the board would, and keeps what was typed and said.
func (b *board) does(limit time.Duration, script string) string {
	b.t.Helper()
	begin := time.Now()
	out, err := b.ShellFor(b.t.Context(), limit, "exec 2>&1\n"+script)
	b.say("# %s\n%s\n(%.1f s)", strings.ReplaceAll(script, "\n", "\n> "), out, time.Since(begin).Seconds())
	if err != nil {
		journal, _ := b.Shell(b.t.Context(), "journalctl --no-pager -n 120 -o short-monotonic; systemctl --failed --no-pager")
		b.t.Fatalf("%v\n%s", err, journal)
	}
	return out
}

// count is how many records of a class the fleet has.
func (b *board) count(class string) uint64 {
	b.t.Helper()
	got, err := b.api.Board(b.t.Context(), "vm-1")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range got.Ledger {
		if l.Class == class {
			return l.Arrived
		}
	}
	return 0
}

// more waits until the fleet has n more records of a class than it had.
func (b *board) more(what, class string, n uint64) {
	b.t.Helper()
	first := arrived(b.t, b.api, nil, "vm-1", time.Now(), map[string]uint64{class: b.count(class) + n})
	b.say("  %s: %d more of class %s at the fleet after %v", what, n, class, first[class])
}

// machine boots an emulated board with doors to a fleet of this machine.
func machine(t *testing.T) (*board, *local.Site) {
	t.Helper()
	bin := t.TempDir()
	build(t, filepath.Join(bin, "fulmar-fleet"), "fulmar/cmd/fulmar-fleet")
	site, err := local.New(t.TempDir(), bin, "")
	if err != nil {
		t.Fatal(err)
	}
	site.Hosts = vm.Host
	if err := site.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(site.Fleet.Kill)
	b := &board{t: t}
	if b.api, err = site.API(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keep(t, b.words.String()) })
	// A board is told the gateway's port, and finds it where it found the fleet.
	var doors []vm.Door
	for _, address := range []string{site.HTTPS, site.MQTT} {
		doors = append(doors, vm.Door{Port: port(t, address), Address: address})
	}
	b.Machine, err = vm.Start(t.Context(), vm.Options{Dir: t.TempDir(), Cache: filepath.Join(top(t), ".cache"), Suite: "bookworm", Arch: "arm64", Doors: doors, Memory: 2048})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	b.say("an emulated arm64 machine, Debian 12; a command runs %.1f s after it was turned on", b.Booted.Seconds())
	return b, site
}

func port(t *testing.T, address string) int {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// keep leaves the words where CI collects them, or in out.
func keep(t *testing.T, words string) {
	dir := os.Getenv("FULMAR_ARTIFACTS")
	if dir == "" {
		dir = filepath.Join(top(t), "out/artifacts")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "arm64-machine.txt"), []byte(words), 0o644); err != nil {
		t.Error(err)
	}
}

// TestMachine is the life of a board: installed, joined, sampling and looking, upgraded,
// started again, cut off, removed, purged.
func TestMachine(t *testing.T) {
	wants(t, "all")
	b, site := machine(t)
	ctx := t.Context()
	for _, v := range []string{older, newer} {
		for _, name := range []string{"fulmar-agent", "fulmar"} {
			if err := b.Put(ctx, deb(t, name, v), "/root/"+name+"_"+v+".deb", 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	token, err := site.JoinToken()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Write(ctx, "/root/token", []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.does(5*time.Minute, "cd /root; dpkg -i fulmar-agent_"+older+".deb fulmar_"+older+".deb")
	if out := b.does(time.Minute, "fulmard version; ls -l /var/lib/fulmar"); !strings.Contains(out, older) {
		t.Errorf("fulmard of %s says: %s", older, out)
	}
	b.does(5*time.Minute, "fulmar enrol --fleet "+vm.Host+":"+strconv.Itoa(port(t, site.HTTPS))+" --board vm-1 --timeout 4m - </root/token")
	b.more("after enrol", "metric", 3)
	b.does(time.Minute, "systemctl is-active fulmard.service; systemctl show -p User,MainPID,MemoryCurrent,NRestarts fulmard.service; cat /proc/$(systemctl show -P MainPID fulmard)/cmdline | tr '\\0' ' '")

	if err := b.Write(ctx, "/etc/fulmar/fulmard.d/20-cameras.yaml", []byte(cameras), 0o644); err != nil {
		t.Fatal(err)
	}
	b.does(2*time.Minute, "systemctl restart fulmard.service")
	b.more("the worker on drawn pictures", "event", 3)
	b.more("the worker on drawn pictures", "snapshot", 1)
	b.does(time.Minute, "systemctl show -p User,NRestarts,MemoryCurrent fulmar-infer.service; fulmar-infer doctor || true")

	b.does(5*time.Minute, "cd /root; dpkg -i fulmar-agent_"+newer+".deb fulmar_"+newer+".deb")
	if out := b.does(time.Minute, "fulmard version; ls -l /var/lib/fulmar /var/lib/fulmar/slots"); !strings.Contains(out, newer) {
		t.Errorf("fulmard after the upgrade says: %s", out)
	}
	b.more("after the upgrade", "metric", 3)

	if err := b.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	b.say("rebooted; a command runs %.1f s after it was turned on", b.Booted.Seconds())
	b.more("after the reboot", "metric", 3)
	b.Cut()
	if err := b.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	b.say("the power was cut; a command runs %.1f s after it came back", b.Booted.Seconds())
	b.more("after the cut", "metric", 3)
	b.does(3*time.Minute, "systemctl is-system-running --wait || systemctl --failed --no-legend")

	b.does(3*time.Minute, "dpkg --remove fulmar-agent; ls /var/lib/fulmard /etc/fulmar; ! systemctl is-active fulmard.service")
	b.does(3*time.Minute, "dpkg --purge fulmar-agent fulmar; ! ls -d /var/lib/fulmard /etc/fulmar /var/lib/fulmar")
	took, err := b.Shutdown(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.say("turned off in %.1f s", took.Seconds())
}
