// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/cmd/fulmar/here"
	"fulmar/device"
	"fulmar/device/devicetest"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// accounts are the users as sysusers makes them.
const accounts = `-- etc/passwd --
root:x:0:0:root:/root:/bin/bash
fulmar:x:998:998::/var/lib/fulmard:/usr/sbin/nologin
fulmar-infer:x:997:998::/:/usr/sbin/nologin
-- etc/group --
root:x:0:
video:x:44:fulmar-infer
i2c:x:108:fulmar
gpio:x:999:fulmar
render:x:109:fulmar-infer
tss:x:110:fulmar
fulmar:x:998:
`

// inode is what a test says of a file's rights.
type inode struct {
	uid, gid uint32
	mode     uint32
}

// packaged are the files as the package leaves them.
func packaged() map[string]inode {
	return map[string]inode{
		"/var/lib/fulmard": {998, 998, 0o750}, "/var/lib/fulmar": {998, 998, 0o755},
		"/etc/fulmar/fulmard.yaml": {0, 998, 0o640}, "/etc/fulmar/fulmard.d": {0, 998, 0o750}, "/etc/fulmar/join-token": {0, 998, 0o640},
		"dev/tpmrm0": {0, 110, 0o660}, "dev/i2c-1": {0, 108, 0o660}, "dev/gpiochip0": {0, 999, 0o660},
		"dev/nvhost-ctrl-gpu": {0, 44, 0o660}, "dev/nvmap": {0, 44, 0o660}, "dev/video0": {0, 44, 0o660}, "dev/video1": {0, 44, 0o660},
	}
}

// machineOf is a machine whose files are a tree, and the rest fixed.
func machineOf(root device.Root, files map[string]inode) *machine {
	m := &machine{root: root, path: "/etc/fulmar/fulmard.yaml", shown: new(here.Shown)}
	m.shown.Config.Data = "/var/lib/fulmard"
	m.sys = system{
		now: func() time.Time { return time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC) }, synced: func() bool { return true },
		statfs: func(_ string, st *unix.Statfs_t) error {
			*st = unix.Statfs_t{Bsize: 4096, Blocks: 15 << 20, Bavail: 10 << 20, Files: 1 << 22, Ffree: 1 << 21}
			return nil
		},
		stat: func(path string, st *unix.Stat_t) error {
			for p, f := range files {
				if path == root.Path(p) {
					*st = unix.Stat_t{Uid: f.uid, Gid: f.gid, Mode: f.mode}
					return nil
				}
			}
			return unix.ENOENT
		},
		find:   func(string) (string, error) { return "", errors.New("none") },
		run:    func(context.Context, string, ...string) (string, error) { return "", errors.New("none") },
		lookup: func(context.Context, string) ([]string, error) { return nil, nil },
		dial:   func(context.Context, string) error { return nil },
	}
	return m
}

func text(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.write(&b, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestBoards: what is told of three machines, word for word.
func TestBoards(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.tree")
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			tree := string(b)
			if !strings.Contains(tree, "-- etc/passwd --") {
				tree += accounts
			}
			m := machineOf(devicetest.Tree(t, tree), packaged())
			got := text(t, examine(t.Context(), m, checks(false), 10*time.Second))
			golden := strings.TrimSuffix(f, ".tree") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if want, _ := os.ReadFile(golden); got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

// look takes one look and gives what it says.
func look(t *testing.T, m *machine, f func(context.Context, *machine) []Line) string {
	t.Helper()
	r := &Report{OK: true, Lines: f(t.Context(), m)}
	s := text(t, r)
	return s[:strings.LastIndex(strings.TrimSpace(s), "\n")+1] // without the sum
}

func says(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("no %q in\n%s", w, got)
		}
	}
}

func TestRights(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, accounts+"-- dev/tpmrm0 --\n-- dev/video0 --\n-- dev/i2c-1 --\n")
	files := packaged()
	files["/var/lib/fulmard"] = inode{0, 0, 0o755}
	files["/etc/fulmar/fulmard.yaml"] = inode{0, 0, 0o600}
	files["dev/tpmrm0"] = inode{0, 0, 0o600}
	files["dev/video0"] = inode{0, 0, 0o600}
	m := machineOf(root, files)
	says(t, look(t, m, folders), "bad", "fulmar cannot write its data: /var/lib/fulmard is of user 0, group 0, mode 0755", "sudo chown fulmar:fulmar /var/lib/fulmard", "cannot read its config")
	says(t, look(t, m, devices), "warning", "fulmar cannot use the TPM: /dev/tpmrm0", "udevadm")
	says(t, look(t, m, cameras), "bad", "/dev/video0, which fulmar-infer cannot read", "usermod -aG video fulmar-infer")
	files["/var/lib/fulmard"], files["dev/tpmrm0"] = inode{0, 998, 0o500}, inode{0, 110, 0o640}
	says(t, look(t, m, folders), "fulmar cannot write its data: /var/lib/fulmard is of user 0, group 998, mode 0500")
	says(t, look(t, m, devices), "fulmar cannot use the TPM: /dev/tpmrm0")
	delete(files, "/var/lib/fulmar")
	says(t, look(t, m, folders), "/var/lib/fulmar: no such file or directory", "reinstall")

	m = machineOf(devicetest.Tree(t, strings.Replace(accounts, "video:x:44:fulmar-infer", "video:x:44:", 1)), packaged())
	says(t, look(t, m, users), "warning", "fulmar-infer is not in video", "sudo usermod -aG video fulmar-infer")
	m = machineOf(devicetest.Tree(t, "-- etc/passwd --\nfulmarx:x:1:1::/:/x\n"), packaged())
	says(t, look(t, m, users), "bad", "no user fulmar, fulmar-infer")
}

func TestClockAndDisk(t *testing.T) {
	t.Parallel()
	rtc := "-- sys/class/rtc/rtc0/since_epoch --\n%\n"
	m := machineOf(devicetest.Tree(t, strings.Replace(rtc, "%", "77", 1)), nil)
	m.live = true
	says(t, look(t, m, clock), "good", "synchronised", "rtc0) has lost the time")
	m.sys.synced = func() bool { return false }
	says(t, look(t, m, clock), "warning", "kept by nothing", "timedatectl")
	m.sys.now = func() time.Time { return time.Unix(1000, 0) }
	says(t, look(t, m, clock), "warning", "the year is 1970")
	m = machineOf(devicetest.Tree(t, strings.Replace(rtc, "%", "1795694400", 1)), nil)
	m.live = true
	says(t, look(t, m, clock), "it has a hardware clock (rtc0)")

	statfs := func(st unix.Statfs_t, err error) {
		m.sys.statfs = func(_ string, out *unix.Statfs_t) error { *out = st; return err }
	}
	st := unix.Statfs_t{Bsize: 4096, Blocks: 1 << 20, Bavail: 1 << 19, Files: 1 << 20, Ffree: 1 << 19}
	for _, c := range []struct {
		change func(*unix.Statfs_t)
		want   []string
	}{
		{func(*unix.Statfs_t) {}, []string{"good", "2048 MiB free of 4096 MiB"}},
		{func(s *unix.Statfs_t) { s.Flags = unix.ST_RDONLY }, []string{"bad", "read-only", "remount"}},
		{func(s *unix.Statfs_t) { s.Bavail = 1000 }, []string{"bad", "3 MiB free"}},
		{func(s *unix.Statfs_t) { s.Bavail = 100_000 }, []string{"warning", "390 MiB free"}},
		{func(s *unix.Statfs_t) { s.Ffree = 12 }, []string{"warning", "only 12 more files"}},
		{func(s *unix.Statfs_t) { s.Files, s.Ffree = 0, 0 }, []string{"good"}}, // btrfs counts none
	} {
		s := st
		c.change(&s)
		statfs(s, nil)
		says(t, look(t, m, disk), c.want...)
	}
	statfs(st, unix.ENOENT)
	says(t, look(t, m, disk), "bad", "no such file")
}

func TestUnits(t *testing.T) {
	t.Parallel()
	m := machineOf(devicetest.Tree(t, accounts), nil)
	m.sys.find = func(s string) (string, error) { return "/bin/" + s, nil }
	show := func(text string) string {
		m.sys.run = func(context.Context, string, ...string) (string, error) { return text, nil }
		return look(t, m, units)
	}
	unit := func(id, load, active, sub, restarts, file string) string {
		return "NRestarts=" + restarts + "\nResult=exit-code\nExecMainStatus=1\nId=" + id + "\nLoadState=" + load + "\nActiveState=" + active + "\nSubState=" + sub + "\nUnitFileState=" + file + "\n"
	}
	all := unit("fulmard.service", "loaded", "active", "running", "0", "enabled") + "\n" + unit("fulmar-infer.socket", "loaded", "active", "listening", "", "enabled") + "\n" +
		unit("fulmar-infer.service", "loaded", "inactive", "dead", "0", "static")
	says(t, show(all), "good", "fulmard running, fulmar-infer.socket listening, fulmar-infer dead")
	says(t, show(unit("fulmard.service", "not-found", "inactive", "dead", "0", "")), "bad", "fulmard.service is not there")
	says(t, show(unit("fulmard.service", "loaded", "failed", "failed", "6", "enabled")), "bad", "fulmard failed (exit-code, exit 1), started again 6 times", "journalctl -u fulmard")
	says(t, show(unit("fulmard.service", "loaded", "activating", "auto-restart", "2", "enabled")), "bad", "started again 2 times")
	says(t, show(unit("fulmard.service", "loaded", "inactive", "dead", "0", "enabled")), "bad", "fulmard is inactive", "enable --now")
	says(t, show(unit("fulmard.service", "loaded", "active", "running", "0", "disabled")), "warning", "will not after the next boot")
	says(t, show(unit("fulmard.service", "loaded", "active", "running", "3", "enabled")), "warning", "started again 3 times")
	says(t, show(unit("fulmard.service", "masked", "inactive", "dead", "0", "masked")), "warning", "unmask")
	m.sys.run = func(context.Context, string, ...string) (string, error) { return "", errors.New("not been booted") }
	says(t, look(t, m, units), "warning", "systemd does not answer: not been booted")
	m.sys.find = func(string) (string, error) { return "", errors.New("none") }
	says(t, look(t, m, units), "warning", "no systemd here")
}

func TestFleet(t *testing.T) {
	t.Parallel()
	m := machineOf(devicetest.Tree(t, accounts), nil)
	of := func(state, key, link, refusal string, causes ...string) string {
		m.sys.health = func(context.Context, *here.Config) (*here.Health, map[string]float64, error) {
			h := &here.Health{Link: link, Causes: causes}
			if state != "" {
				h.Identity = new(struct {
					State       string `json:"state"`
					Key         string `json:"key"`
					TPM         string `json:"tpm"`
					Trust       string `json:"trust"`
					Fingerprint string `json:"fingerprint"`
					Refusal     string `json:"refusal"`
				})
				h.Identity.State, h.Identity.Key, h.Identity.Fingerprint, h.Identity.Refusal = state, key, "3f0c", refusal
			}
			return h, map[string]float64{"fulmar_link_acked_total": 12, "fulmar_spool_outstanding_records": 3}, nil
		}
		return look(t, m, fleet)
	}
	says(t, of("enrolled", "tpm", "up", ""), "good     identity  enrolled, key in the TPM", "good     link      up; 12 records acknowledged, 3 wait")
	says(t, of("enrolled", "software", "waiting", "", "link: TLS with x: refused"), "which can be copied", "warning  link      waiting; 3 records wait", "link: TLS with x: refused")
	says(t, of("waiting_approval", "tpm", "waiting_approval", ""), "warning", "its fingerprint is 3f0c", "approve")
	says(t, of("enrolling", "", "enrolling", "token"), "warning", "sudo fulmar enrol")
	says(t, of("tpm_missing", "", "tpm_missing", "", "link: no TPM"), "bad", "tpm_missing", "fulmar tpm info")
	says(t, of("", "", "up", ""), "good     link")
	fail := func(err error) string {
		m.sys.health = func(context.Context, *here.Config) (*here.Health, map[string]float64, error) { return nil, nil, err }
		return look(t, m, fleet)
	}
	says(t, fail(here.ErrOff), "warning", "cannot be asked")
	says(t, fail(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", unix.EACCES)}), "warning", "sudo fulmar doctor")
	says(t, fail(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", unix.ENOENT)}), "bad", "no such file", "systemctl start fulmard")
}

func TestSlotNetworkModels(t *testing.T) {
	t.Parallel()
	m := machineOf(devicetest.Tree(t, accounts+"-- usr/lib/fulmar/fulmar-launch --\n"), nil)
	m.sys.find = func(s string) (string, error) { return s, nil }
	answer := func(text string, err error, f func(context.Context, *machine) []Line) string {
		m.sys.run = func(context.Context, string, ...string) (string, error) { return text, err }
		return look(t, m, f)
	}
	says(t, answer(`{"current":"a","slots":[{"id":"a","version":"1.2.3","origin":"ota","whole":true},{"id":"b","version":"1","whole":false}]}`, nil, slot), "good", "version 1.2.3 (ota), confirmed")
	says(t, answer(`{"current":"a","trial":true,"tries":2,"max_tries":3,"slots":[{"id":"a","version":"1.2.3","origin":"deb","whole":true}]}`, nil, slot), "on trial, start 2 of 3")
	says(t, answer(`{"current":"a","fall":{"from":"b","to":"a","reason":"died"},"note":"damaged","slots":[{"id":"a","whole":false,"why":"short"}]}`, nil, slot), "bad", "not whole: short", "went back from b to a: died", "warning  slot      damaged")
	says(t, answer(`{"slots":[]}`, nil, slot), "bad", "no version is chosen")
	says(t, answer(`oops`, nil, slot), "bad", "fulmar-launch status")

	says(t, answer(`{"ok":true,"choice":"models run on ONNX","findings":[{"what":"TensorRT","state":"missing","value":"none","advice":"install"},{"what":"L4T","state":"ok","value":"x"}]}`, errors.New("1"), models),
		"warning  models    TensorRT: none", "-> install", "good     models    models run on ONNX")
	says(t, answer(`{"ok":false,"choice":"no model can run here","findings":[]}`, errors.New("1"), models), "bad      models    no model can run here")
	says(t, answer(``, errors.New("killed"), models), "bad", "fulmar-infer doctor: killed")
	m.shown.Config.Infer.Mode = "off"
	says(t, answer(``, nil, models), "infer.mode is off")

	m.shown.Config.Fleet.Address = "fleet.example:8443"
	says(t, look(t, m, network), "good", "fleet.example:8443 answers")
	m.sys.dial = func(context.Context, string) error {
		return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", unix.ECONNREFUSED)}
	}
	says(t, look(t, m, network), "bad", "does not answer: connect: connection refused")
	m.sys.lookup = func(context.Context, string) ([]string, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "x"}
	}
	says(t, look(t, m, network), "bad", "fleet.example is not found: no such host", "resolvectl")
}

// TestHang: files and programs that hang cost their own line, and no more than the time.
func TestHang(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, accounts+`-- sys/class/thermal/cooling_device0/type fifo --
-- sys/class/rtc/rtc0/since_epoch fifo --
-- proc/device-tree/model fifo --
-- etc/nv_tegra_release fifo --
-- etc/nvpmodel.conf fifo --
-- var/lib/dpkg/status fifo --
-- proc/self/mountinfo fifo --
-- usr/lib/fulmar/fulmar-launch --
`)
	m := machineOf(root, packaged())
	m.live, m.shown.Config.Fleet.Address = true, "f.example:1"
	m.sys.find = func(s string) (string, error) { return s, nil }
	m.sys.run = func(context.Context, string, ...string) (string, error) { select {} } // heeds nothing
	m.sys.health = func(ctx context.Context, _ *here.Config) (*here.Health, map[string]float64, error) {
		<-ctx.Done()
		return nil, nil, ctx.Err()
	}
	m.sys.lookup = func(ctx context.Context, _ string) ([]string, error) { <-ctx.Done(); return nil, ctx.Err() }
	begin := time.Now()
	got := text(t, examine(t.Context(), m, checks(true), 300*time.Millisecond))
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	says(t, got, "warning  slot      no answer within 300ms", "warning  units     no answer within", "warning  models    no answer within",
		"bad      network   f.example is not found", "good     users", "good     disk", "good     folders")
}

func TestJSON(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	r := &Report{OK: true, Lines: []Line{good("a", "b")}}
	if err := r.write(&b, true); err != nil || !strings.Contains(b.String(), `"ok": true`) || strings.Contains(b.String(), `"do"`) {
		t.Errorf("%v %s", err, &b)
	}
}

// FuzzFiles: whatever a file holds, a look ends and says something.
func FuzzFiles(f *testing.F) {
	f.Add([]byte("Package: nvidia-jetpack\nStatus: install ok installed\nVersion: 6.2\n\nfulmar:x:1:2:fulmar\n36 1 8:1 / / rw - ext4 /dev/sda1 rw\n"))
	f.Add([]byte("fulmar::::\n - \nId=\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		for _, p := range []string{"etc/passwd", "etc/group", dpkgStatus, "proc/self/mountinfo", "etc/nv_tegra_release", modesFile, "sys/class/tpm/tpm0/tpm_version_major"} {
			p = filepath.Join(dir, p)
			if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m := machineOf(device.NewRoot(dir), packaged())
		m.sys.find = func(s string) (string, error) { return s, nil }
		m.sys.run = func(context.Context, string, ...string) (string, error) { return string(b), nil }
		for _, c := range append(checks(false), check{"slot", slot}, check{"units", units}, check{"models", models}) {
			c.look(t.Context(), m)
		}
	})
}
