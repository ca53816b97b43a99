// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The users of the package, and what they read.
const (
	agentUser  = "fulmar"
	workerUser = "fulmar-infer"
	reinstall  = "sudo apt install --reinstall fulmar-agent makes the users and folders"
	maxPasswd  = 1 << 20
)

// account is a user with its groups.
type account struct {
	name   string
	uid    uint32
	groups []uint32
}

// account looks a user up in the files of the root; not in a directory service, where no
// system user of a package is.
func (m *machine) account(name string) (account, bool) {
	a := account{name: name}
	f := m.entry("etc/passwd", name)
	if len(f) < 4 {
		return a, false
	}
	uid, err1 := strconv.ParseUint(f[2], 10, 32)
	gid, err2 := strconv.ParseUint(f[3], 10, 32)
	if err1 != nil || err2 != nil {
		return a, false
	}
	a.uid, a.groups = uint32(uid), []uint32{uint32(gid)}
	b, _ := m.root.ReadOnce("etc/group", maxPasswd)
	for line := range strings.Lines(string(b)) {
		g := strings.Split(strings.TrimSpace(line), ":")
		if len(g) == 4 && slices.Contains(strings.Split(g[3], ","), name) {
			if n, err := strconv.ParseUint(g[2], 10, 32); err == nil {
				a.groups = append(a.groups, uint32(n))
			}
		}
	}
	return a, true
}

// entry is the line of a name in passwd or group.
func (m *machine) entry(file, name string) []string {
	b, _ := m.root.ReadOnce(file, maxPasswd)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, name+":") {
			return strings.Split(strings.TrimSpace(line), ":")
		}
	}
	return nil
}

func (m *machine) group(name string) (uint32, bool) {
	f := m.entry("etc/group", name)
	if len(f) < 3 {
		return 0, false
	}
	n, err := strconv.ParseUint(f[2], 10, 32)
	return uint32(n), err == nil
}

// may tells whether a user has the rights (4 read, 2 write, 1 enter) on a file, by its
// owner, group and mode. Nothing is opened: a device might begin to work, or hang.
func (a account) may(st *unix.Stat_t, want uint32) bool {
	switch {
	case a.uid == 0:
		return true
	case st.Uid == a.uid:
		return st.Mode>>6&want == want
	case slices.Contains(a.groups, st.Gid):
		return st.Mode>>3&want == want
	}
	return st.Mode&want == want
}

func (m *machine) stat(p string) (*unix.Stat_t, error) {
	st := new(unix.Stat_t)
	return st, m.sys.stat(m.root.Path(p), st)
}

// users tells whether the package's users are there, and in the groups that they need.
func users(_ context.Context, m *machine) (out []Line) {
	var missing, without []string
	for _, u := range []struct {
		name   string
		groups []string
	}{{agentUser, []string{"tss", "i2c", "gpio"}}, {workerUser, []string{agentUser, "video", "render"}}} {
		a, ok := m.account(u.name)
		if !ok {
			missing = append(missing, u.name)
			continue
		}
		for _, g := range u.groups {
			if gid, ok := m.group(g); ok && !slices.Contains(a.groups, gid) {
				without = append(without, fmt.Sprintf("%s is not in %s", u.name, g))
			}
		}
	}
	switch {
	case missing != nil:
		return []Line{bad("users", reinstall, "no user %s on this machine", strings.Join(missing, ", "))}
	case without != nil:
		first := strings.Fields(without[0]) // "fulmar is not in tss"
		return []Line{warn("users", "sudo usermod -aG "+first[4]+" "+first[0]+", and so on; then sudo systemctl restart fulmard fulmar-infer", "%s", strings.Join(without, ", "))}
	}
	return []Line{good("users", "%s and %s, with their groups", agentUser, workerUser)}
}

// folders tells whether fulmard can read its config and write its data.
func folders(_ context.Context, m *machine) (out []Line) {
	a, ok := m.account(agentUser)
	if !ok {
		return nil // told by users
	}
	data := m.shown.Config.Data
	for _, f := range []struct {
		path string
		want uint32
		what string
	}{
		{data, 7, "write its data"},
		{"/var/lib/fulmar", 7, "switch its versions"},
		{"/etc/fulmar/fulmard.yaml", 4, "read its config"},
		{"/etc/fulmar/fulmard.d", 5, "read what enrolment wrote"},
		{"/etc/fulmar/join-token", 4, "read its token"},
	} {
		st, err := m.stat(f.path)
		if err != nil {
			if f.want == 7 {
				out = append(out, bad("folders", reinstall, "%s: %v", f.path, err))
			}
			continue
		}
		if !a.may(st, f.want) {
			out = append(out, bad("folders", fmt.Sprintf("sudo chown %s %s (or reinstall the package)", map[bool]string{true: "fulmar:fulmar", false: "root:fulmar"}[f.want == 7], f.path),
				"%s cannot %s: %s is of user %d, group %d, mode %04o", agentUser, f.what, f.path, st.Uid, st.Gid, st.Mode&0o7777))
		}
	}
	if st, err := m.stat("/etc/fulmar/join-token"); err == nil && st.Size > 0 && st.Mode&0o004 != 0 {
		out = append(out, warn("folders", "sudo chmod o-r /etc/fulmar/join-token", "every user of this machine reads the join token"))
	}
	if out == nil {
		out = append(out, good("folders", "%s reads its config and writes %s", agentUser, data))
	}
	return out
}

// devices tells whether the device nodes that are there can be used by who needs them.
func devices(_ context.Context, m *machine) (out []Line) {
	names, _ := m.root.List("dev")
	fine, known := 0, false
	for _, d := range []struct {
		user, prefix, what, group string
	}{
		{agentUser, "tpmrm", "the TPM", "tss"},
		{agentUser, "i2c-", "I2C sensors", "i2c"},
		{agentUser, "gpiochip", "GPIO", "gpio"},
		{workerUser, "nvhost-ctrl-gpu", "the GPU", "video"},
		{workerUser, "nvmap", "the GPU's memory", "video"},
	} {
		a, ok := m.account(d.user)
		if !ok {
			continue
		}
		known = true
		var not []string
		for _, n := range names {
			if !strings.HasPrefix(n, d.prefix) || len(not) == maxNodes {
				continue
			}
			if st, err := m.stat("dev/" + n); err == nil && !a.may(st, 6) {
				not = append(not, "/dev/"+n)
			} else if err == nil {
				fine++
			}
		}
		if not != nil {
			out = append(out, warn("devices", "sudo udevadm control --reload && sudo udevadm trigger (the package brings rules that give them to group "+d.group+")", "%s cannot use %s: %s", d.user, d.what, strings.Join(not, ", ")))
		}
	}
	if out == nil && known {
		out = append(out, good("devices", "%d nodes of TPM, I2C, GPIO and GPU are there, all with the right group", fine))
	}
	return out
}

// cameras names those there are and whether the worker reads them.
func cameras(_ context.Context, m *machine) (out []Line) {
	names, _ := m.root.List("dev")
	a, known := m.account(workerUser)
	for _, n := range names {
		if !strings.HasPrefix(n, "video") || len(out) == maxNodes {
			continue
		}
		if i := m.text("sys/class/video4linux/" + n + "/index"); i != "" && i != "0" {
			continue // metadata of a camera that was named
		}
		say := "/dev/" + n
		if name := m.text("sys/class/video4linux/" + n + "/name"); name != "" {
			say += ", " + name
		}
		if st, err := m.stat("dev/" + n); err == nil && known && !a.may(st, 6) {
			out = append(out, bad("camera", "sudo usermod -aG video fulmar-infer; sudo udevadm trigger; sudo systemctl restart fulmar-infer", "%s, which %s cannot read (group %d, mode %04o)", say, workerUser, st.Gid, st.Mode&0o7777))
			continue
		}
		out = append(out, good("camera", "%s", say))
	}
	if out == nil {
		out = append(out, good("camera", "none at /dev/video*"))
	}
	return out
}

// tpm tells of the chip from what the kernel says; fulmar tpm info asks the chip itself.
func tpm(_ context.Context, m *machine) []Line {
	c := &m.shown.Config
	names, _ := m.root.List("sys/class/tpm")
	if len(names) == 0 || names[0] != "tpm0" {
		if c.Key.Mode == "tpm" || c.TPM.Required {
			return []Line{bad("tpm", "enable it in the firmware, or take key.mode and tpm.required out of the config", "there is none, and the config wants one")}
		}
		return []Line{good("tpm", "there is none: the board's key is in a file, and who copies the disk has it")}
	}
	version := m.text("sys/class/tpm/tpm0/tpm_version_major")
	what := m.text("sys/class/tpm/tpm0/device/description")
	if what == "" {
		what = "a TPM"
	}
	switch {
	case version != "" && version != "2":
		return []Line{warn("tpm", "fulmar uses TPM 2.0 only; the board's key is in a file", "%s of version %s", what, version)}
	case !m.root.Exists("dev/tpmrm0"):
		return []Line{warn("tpm", "dmesg | grep -i tpm", "%s, but no /dev/tpmrm0", what)}
	}
	return []Line{good("tpm", "%s, version 2, at /dev/tpmrm0; fulmar tpm info tells more", what)}
}
