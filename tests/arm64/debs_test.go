// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package arm64

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/tests/foreign"
	"fulmar/tests/vm"
)

// install is the life of the board's packages on a system that is not running: $1 and $2
// are the folders' packages of the older and the newer version. Each line that begins
// with "::" tells the test a fact.
const install = `
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
dpkg -i /root/older/*.deb
echo ":: $(fulmard version)"
echo ":: $(fulmar-infer version)"
fulmar-infer doctor
fulmar-infer model check builtin:parcels
units=$(dpkg -L fulmar-agent | grep -E '/systemd/system/[^/]*\.(service|socket|timer)$')
systemd-analyze --man=no verify $units 2>&1 | sed 's/^/:: verify /'
# That verify would say something: a unit that is wrong.
sed 's/^User=/Uzer=/' "$(dpkg -L fulmar-agent | grep '/fulmard.service$')" >/tmp/wrong.service
systemd-analyze --man=no verify /tmp/wrong.service 2>&1 | grep -q Uzer && echo ":: a wrong unit is seen"
stat -c ':: %n %U:%G %a' /usr/lib/fulmar/fulmar-launch /etc/fulmar/fulmard.yaml /etc/fulmar/join-token /var/lib/fulmar
dpkg -i /root/newer/*.deb
echo ":: $(fulmard version)"
dpkg -i /root/older/*.deb
echo ":: $(fulmard version)"
dpkg --purge fulmar-agent fulmar
ls -d /etc/fulmar /var/lib/fulmar /var/lib/fulmard /usr/lib/fulmar /usr/bin/fulmard 2>/dev/null | sed 's/^/:: left /'
dpkg --audit | sed 's/^/:: audit /'
echo ":: end"
`

// TestPackages installs, upgrades, puts back and purges the packages in Debian 11, 12 and
// 13 as arm64 code, and has each system's own systemd judge the units. The tests of
// tests/packages go into more; here it is the processor and the three systems that count.
func TestPackages(t *testing.T) {
	wants(t, "all")
	for _, suite := range []string{"bullseye", "bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			begin := time.Now()
			root, err := vm.Root(t.Context(), filepath.Join(top(t), ".cache"), suite, "arm64")
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("a root of %s after %v", suite, time.Since(begin).Round(time.Second))
			debs := t.TempDir()
			for folder, version := range map[string]string{"older": older, "newer": newer} {
				if err := os.Mkdir(filepath.Join(debs, folder), 0o755); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"fulmar-agent", "fulmar"} {
					b, err := os.ReadFile(deb(t, name, version))
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(debs, folder, name+".deb"), b, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			begin = time.Now()
			room := foreign.Room{Root: root, Binds: []string{debs}, Layer: true}
			out, err := room.Command(t.Context(), "/bin/sh", "-euc", "D='"+debs+"'\n"+strings.ReplaceAll(install, "/root/", "$D/")).CombinedOutput()
			t.Logf("in %v, emulated:\n%s", time.Since(begin).Round(time.Second), out)
			if err != nil {
				t.Fatalf("%v: the lines above say why", err)
			}
			judge(t, string(out), suite == "bullseye")
		})
	}
}

// judge holds the facts to what they must be; old is Debian 11.
func judge(t *testing.T, out string, old bool) {
	t.Helper()
	var facts []string
	for line := range strings.Lines(out) {
		if fact, ok := strings.CutPrefix(strings.TrimSpace(line), ":: "); ok {
			facts = append(facts, fact)
			// Debian 11's systemd 247 does not know PrivateIPC, says so, and goes on.
			known := old && strings.Contains(fact, "Unknown key name 'PrivateIPC' in section 'Service', ignoring")
			if strings.HasPrefix(fact, "verify ") && strings.Contains(fact, "fulmar") && !known || strings.HasPrefix(fact, "left ") || strings.HasPrefix(fact, "audit ") {
				t.Error(fact)
			}
		}
	}
	all := "\n" + strings.Join(facts, "\n") + "\n"
	for _, want := range []string{
		"\nfulmard " + older + "\nfulmar-infer " + older + "\n", "\na wrong unit is seen\n", "\nfulmard " + newer + "\nfulmard " + older + "\n",
		"/usr/lib/fulmar/fulmar-launch root:root 755\n", "/etc/fulmar/fulmard.yaml root:fulmar 640\n", "/etc/fulmar/join-token root:fulmar 640\n",
		"/var/lib/fulmar fulmar:fulmar 755\n", "\nend\n",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the system does not say %q:\n%s", strings.TrimSpace(want), all)
		}
	}
	if !strings.Contains(out, "4 pictures give what they should") {
		t.Error("the worker did not find what it should in the golden pictures")
	}
}
