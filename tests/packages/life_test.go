// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"strings"
	"testing"
)

var suites = []string{"bullseye", "bookworm", "trixie"}

// TestLife is the way of a board and a server on one machine: installed, upgraded, put
// back, removed, installed again, purged.
func TestLife(t *testing.T) {
	t.Parallel()
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b := newBoard(t, suite)
			b.run(append([]string{"dpkg", "-i"}, all(v1)...)...)
			b.runs(v1)
			b.owners()
			b.run("fulmar-infer", "version")
			b.run("fulmar-fleet", "pin", "-h")
			b.owned()

			b.run(append([]string{"dpkg", "-i"}, all(v2)...)...)
			b.runs(v2)
			b.kept("upgrade")

			b.run(append([]string{"dpkg", "-i"}, all(v1)...)...)
			b.runs(v1)
			b.kept("downgrade")

			b.run(append([]string{"dpkg", "--remove"}, names...)...)
			b.kept("remove")
			b.gone("usr/bin/fulmard", "usr/bin/fulmar", "usr/bin/fulmar-fleet", "usr/lib/fulmar", "usr/lib/systemd/system/fulmard.service")

			b.run(append([]string{"dpkg", "-i"}, all(v2)...)...)
			b.runs(v2)
			b.kept("second installation")

			b.run("dpkg", "--purge", "fulmar-agent")
			b.gone("var/lib/fulmar", "var/lib/fulmard", "var/lib/fulmar-infer", "etc/fulmar/fulmard.d", "etc/fulmar/join-token", "etc/fulmar/fulmard.yaml",
				"etc/systemd/system/multi-user.target.wants/fulmard.service", "etc/systemd/system/sockets.target.wants/fulmar-infer.socket")
			b.keptFleet("purge of fulmar-agent")
			b.run("dpkg", "--purge", "fulmar-fleet", "fulmar")
			b.gone("var/lib/fulmar-fleet", "etc/fulmar", "usr/share/doc/fulmar-fleet", "usr/share/fulmar")
			if out := b.run("sh", "-c", "dpkg -l | grep fulmar || true; dpkg --audit; find / -xdev -name '*fulmar*' -not -path '/debs/*' -not -path '/proc/*'"); out != "" {
				t.Errorf("after the purge there is still: %s", out)
			}
		})
	}
}

// TestFleetGoesFirst: the server's purge touches nothing of the board's.
func TestFleetGoesFirst(t *testing.T) {
	t.Parallel()
	b := newBoard(t, "bookworm")
	b.run(append([]string{"dpkg", "-i"}, all(v1)...)...)
	b.owned()
	b.run("dpkg", "--purge", "fulmar-fleet")
	b.gone("var/lib/fulmar-fleet", "etc/fulmar/fleet.yaml")
	b.keptAgent("purge of fulmar-fleet")
	b.runs(v1)
}

// owners wants each file that the scripts make to be whose the contract says.
func (b *board) owners() {
	b.t.Helper()
	for path, want := range map[string]string{
		"/usr/lib/fulmar/fulmar-launch":         "root:root 755",
		"/usr/lib/fulmar/fulmar-rootfs":         "root:root 755",
		"/usr/lib/fulmar/seed/fulmard":          "root:root 755",
		"/etc/fulmar":                           "root:root 755",
		"/etc/fulmar/fulmard.yaml":              "root:fulmar 640",
		"/etc/fulmar/fulmard.d":                 "root:fulmar 750",
		"/etc/fulmar/join-token":                "root:fulmar 640",
		"/etc/fulmar/fleet.yaml":                "root:fulmar-fleet 640",
		"/var/lib/fulmar":                       "fulmar:fulmar 755",
		"/var/lib/fulmar/slots":                 "fulmar:fulmar 755",
		"/var/lib/fulmar/current/fulmard":       "fulmar:fulmar 755",
		"/var/lib/fulmar/current/slot.json":     "fulmar:fulmar 644",
		"/var/lib/fulmard":                      "fulmar:fulmar 750",
		"/var/lib/fulmard/models":               "fulmar:fulmar 750",
		"/var/lib/fulmar-fleet":                 "fulmar-fleet:fulmar-fleet 700",
		"/usr/lib/udev/rules.d/60-fulmar.rules": "root:root 644",
	} {
		if got := strings.TrimSpace(b.run("stat", "-L", "-c", "%U:%G %a", path)); got != want {
			b.t.Errorf("%s is %s, wants %s", path, got, want)
		}
	}
	for user, want := range map[string]string{
		"fulmar":       "fulmar gpio i2c tss",
		"fulmar-infer": "fulmar render video",
		"fulmar-fleet": "fulmar-fleet",
	} {
		if got := strings.Join(strings.Fields(b.run("sh", "-c", "id -Gn "+user+" | tr ' ' '\\n' | sort")), " "); got != want {
			b.t.Errorf("%s is in %q, wants %q", user, got, want)
		}
	}
	for unit, want := range map[string]string{
		"fulmard.service": "enabled", "fulmar-infer.socket": "enabled", "fulmar-build.socket": "enabled",
		// A person starts the server: its first start makes the authority of all boards.
		"fulmar-fleet.service": "disabled",
		// Experimental, and only where a board has what it needs.
		"fulmar-rootfs.socket": "disabled", "fulmar-rootfs-boot.service": "disabled",
	} {
		if out, _ := b.Run(b.t.Context(), "systemctl", "is-enabled", unit); strings.TrimSpace(out) != want {
			b.t.Errorf("%s is %q, wants %s", unit, out, want)
		}
	}
	if got := b.read("etc/fulmar/join-token"); got != "" {
		b.t.Errorf("the join token is %q at first", got)
	}
}

const edited = "# edited by hand\nfleet: {address: \"fleet.example.com:8443\", token_file: /etc/fulmar/join-token}\n"

// theirs are files that a person, or fulmard, or the server has put there.
var theirs = map[string]string{
	"etc/fulmar/fulmard.yaml":                edited,
	"etc/fulmar/fulmard.d/10-enrolment.yaml": "board: dock-3\n",
	"etc/fulmar/join-token":                  "a token",
	"var/lib/fulmard/identity/board.key":     "a key",
	"var/lib/fulmard/spool/metric/1.db":      "records",
	"var/lib/fulmar-infer/cache":             "of the worker's libraries",
}

var fleets = map[string]string{
	"etc/fulmar/fleet.yaml":        "hosts: [fleet.example.com]\n",
	"var/lib/fulmar-fleet/ca/key":  "an authority",
	"var/lib/fulmar-fleet/data.db": "records",
}

// owned writes what nobody may lose.
func (b *board) owned() {
	b.t.Helper()
	b.run("mkdir", "-p", "/var/lib/fulmard/identity", "/var/lib/fulmard/spool/metric", "/var/lib/fulmar-infer", "/var/lib/fulmar-fleet/ca")
	for path, text := range theirs {
		b.write(path, text)
	}
	for path, text := range fleets {
		b.write(path, text)
	}
	b.run("chown", "-R", "fulmar:fulmar", "/var/lib/fulmard")
	b.run("chown", "-R", "fulmar-fleet:fulmar-fleet", "/var/lib/fulmar-fleet")
	b.run("systemctl", "disable", "fulmar-build.socket") // a person's decision, too
}

func (b *board) kept(after string) {
	b.t.Helper()
	b.keptAgent(after)
	b.keptFleet(after)
}

func (b *board) keptAgent(after string) {
	b.t.Helper()
	for path, text := range theirs {
		if got := b.read(path); got != text {
			b.t.Errorf("after the %s %s is %q, was %q", after, path, got, text)
		}
	}
	b.gone("etc/fulmar/fulmard.yaml.dpkg-dist", "etc/systemd/system/sockets.target.wants/fulmar-build.socket")
	if _, err := b.Run(b.t.Context(), "id", "fulmar"); err != nil {
		b.t.Errorf("after the %s: %v", after, err)
	}
}

func (b *board) keptFleet(after string) {
	b.t.Helper()
	for path, text := range fleets {
		if got := b.read(path); got != text {
			b.t.Errorf("after the %s %s is %q, was %q", after, path, got, text)
		}
	}
}

// TestConfigOfBoth: a config that was edited, and that a new version brings in another
// form. dpkg asks a person; told to keep the old one, as the installer for sites without a
// network does, it keeps it, and puts the new one beside it.
func TestConfigOfBoth(t *testing.T) {
	t.Parallel()
	b := newBoard(t, "bookworm")
	b.run("dpkg", "-i", deb("fulmar-agent", v1))
	b.write("etc/fulmar/fulmard.yaml", edited)
	b.fails([]string{"fulmard.yaml", "conffile prompt"}, "sh", "-c", "dpkg -i "+deb("fulmar-agent", vConf)+" </dev/null")
	if got := b.read("etc/fulmar/fulmard.yaml"); got != edited {
		t.Errorf("without an answer the config became %q", got)
	}
	b.runs(v1) // not configured, so the old slot
	b.run("dpkg", "--force-confold", "--configure", "-a")
	b.runs(vConf)
	if got := b.read("etc/fulmar/fulmard.yaml"); got != edited {
		t.Errorf("the config became %q", got)
	}
	if got := b.read("etc/fulmar/fulmard.yaml.dpkg-dist"); !strings.Contains(got, "A line of a new version") {
		t.Error("the new form is not beside it")
	}
}
