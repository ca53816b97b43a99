// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package units

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const folder = "../../cross/systemd"

// tool skips, and fails in CI, where a program of systemd is missing.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v: cross/need systemd", err)
		}
		t.Skipf("%v: cross/need systemd", err)
	}
	return path
}

// unitFiles are the units, by name.
func unitFiles(t *testing.T) map[string]string {
	t.Helper()
	units := map[string]string{}
	for _, pattern := range []string{"*.service", "*.socket", "*.timer"} {
		paths, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no %s in %s: %v", pattern, folder, err)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			units[filepath.Base(p)] = string(b)
		}
	}
	return units
}

// Every unit of ours that a unit names is there: a start limit whose retry is missing
// would leave a board down for good, and systemd only logs it.
func TestUnitsNameEachOther(t *testing.T) {
	t.Parallel()
	units := unitFiles(t)
	named := regexp.MustCompile(`(?m)^(?:After|Wants|Requires|OnFailure|PartOf|Unit)=(.*)$`)
	n := 0
	for name, text := range units {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			for _, other := range strings.Fields(m[1]) {
				if !strings.HasPrefix(other, "fulmar") {
					continue
				}
				n++
				if units[other] == "" {
					t.Errorf("%s names %s, which is not there", name, other)
				}
			}
		}
		if strings.Contains(text, "StartLimitBurst=") && !strings.Contains(text, "OnFailure="+strings.TrimSuffix(name, ".service")+"-retry.timer") {
			t.Errorf("%s has a start limit and nothing that starts it again", name)
		}
	}
	if n < 8 {
		t.Errorf("only %d names were looked at", n)
	}
}

// The rest after a start limit is longer than the limit's interval: a start within it
// would be refused, and nothing would come after.
func TestRestOutlastsTheLimit(t *testing.T) {
	t.Parallel()
	units := unitFiles(t)
	value := func(unit, key string) string {
		m := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(units[unit])
		if m == nil {
			t.Fatalf("%s has no %s", unit, key)
		}
		return m[1]
	}
	seconds := func(s string) int {
		unit := 1
		if v, ok := strings.CutSuffix(s, "min"); ok {
			s, unit = v, 60
		}
		n, err := strconv.Atoi(strings.TrimSuffix(s, "s"))
		if err != nil {
			t.Fatal(err)
		}
		return n * unit
	}
	for _, u := range []string{"fulmard", "fulmar-infer"} {
		limit, rest := seconds(value(u+".service", "StartLimitIntervalSec")), seconds(value(u+"-retry.timer", "OnActiveSec"))
		if rest <= limit {
			t.Errorf("%s: a rest of %d s within a limit's %d s", u, rest, limit)
		}
	}
}

// systemd finds nothing to say about any unit, and their exposure is within its bounds.
func TestSystemdReadsTheUnits(t *testing.T) {
	t.Parallel()
	analyze := tool(t, "systemd-analyze")
	dir := t.TempDir()
	var paths []string
	for name, text := range unitFiles(t) {
		// The programs are not installed here.
		text = regexp.MustCompile(`(?m)^ExecStart=\S+`).ReplaceAllString(text, "ExecStart=/bin/true")
		paths = append(paths, filepath.Join(dir, name))
		if err := os.WriteFile(paths[len(paths)-1], []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(paths)
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, paths...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "fulmar") {
			t.Errorf("systemd says: %s", line)
		}
	}
	if err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	for unit, most := range map[string]float64{"fulmard.service": 1.5, "fulmar-infer.service": 3, "fulmar-build@.service": 3, "fulmar-fleet.service": 1.5, "fulmar-rootfs@.service": 2.5, "fulmar-rootfs-boot.service": 2.5} {
		out, err := exec.Command(analyze, "security", "--offline=true", "--no-pager", filepath.Join(dir, unit)).Output()
		if err != nil {
			t.Errorf("%s: %v", unit, err)
			continue
		}
		got, err := exposure(string(out))
		if err != nil || got > most {
			t.Errorf("%s: exposure %.1f, wants at most %.1f, %v", unit, got, most, err)
		}
		t.Logf("%s: exposure %.1f", unit, got)
	}
}

// exposure finds the figure in what systemd-analyze security prints.
func exposure(out string) (float64, error) {
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("no exposure in %q", out)
	}
	return strconv.ParseFloat(m[1], 64)
}

// Users and folders in an empty root, twice: the second time changes nothing and finds
// nothing wrong.
func TestUsersAndFolders(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("only root may give folders to users")
		}
		t.Skip("only root may give folders to users")
	}
	sysusers, tmpfiles := tool(t, "systemd-sysusers"), tool(t, "systemd-tmpfiles")
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	abs, err := filepath.Abs(folder)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, c := range [][]string{
			{sysusers, "--root=" + root, filepath.Join(abs, "fulmar-agent.sysusers.conf"), filepath.Join(abs, "fulmar-fleet.sysusers.conf")},
			{tmpfiles, "--root=" + root, "--create", filepath.Join(abs, "fulmar-agent.tmpfiles.conf")},
		} {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", c, err, out)
			}
		}
	}
	passwd, groups := table(t, root, "passwd"), table(t, root, "group")
	fulmar := groups["fulmar"]
	if passwd["fulmar"][3] != fulmar[2] || passwd["fulmar-infer"][3] != fulmar[2] {
		t.Errorf("fulmar %v and fulmar-infer %v are not both of group %v", passwd["fulmar"], passwd["fulmar-infer"], fulmar)
	}
	for group, user := range map[string]string{"tss": "fulmar", "i2c": "fulmar", "gpio": "fulmar", "video": "fulmar-infer", "render": "fulmar-infer"} {
		if g := groups[group]; len(g) < 4 || g[3] != user {
			t.Errorf("group %s: %v, wants %s", group, g, user)
		}
	}
	// Who gives commands at the board is named by a person: neither program is among them,
	// least of all the worker, whose first group opens the socket.
	if g := groups["fulmar-operators"]; len(g) < 4 || g[3] != "" {
		t.Errorf("group fulmar-operators: %v, wants nobody in it", g)
	}
	for path, mode := range map[string]os.FileMode{"fulmar": 0o755, "fulmar/slots": 0o755, "fulmard": 0o750, "fulmard/pictures": 0o770, "fulmard/models": 0o750} {
		st, err := os.Stat(filepath.Join(root, "var/lib", path))
		if err != nil {
			t.Error(err)
			continue
		}
		sys := st.Sys().(*syscall.Stat_t)
		if st.Mode().Perm() != mode || fmt.Sprint(sys.Uid) != passwd["fulmar"][2] || fmt.Sprint(sys.Gid) != fulmar[2] {
			t.Errorf("%s: %v of %d:%d", path, st.Mode(), sys.Uid, sys.Gid)
		}
	}
}

// table reads a file of users or groups.
func table(t *testing.T, root, name string) map[string][]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "etc", name))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		rows[f[0]] = f
	}
	return rows
}
