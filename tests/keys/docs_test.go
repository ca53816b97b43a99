// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fulmar/tpm/tpmtest"
)

// commands are the lines of all blocks of shell of a page.
func commands(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	inside := false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```sh"
		case inside && line != "":
			out = append(out, line)
		}
	}
	return out
}

// TestCommandsOfTheDocs runs the commands of docs/keys.md as they are written, but for
// the places: the server's folder, its TPM, and where the package puts the signers. A
// restart is one of the server of the test, and two months pass by each board renewing.
func TestCommandsOfTheDocs(t *testing.T) {
	t.Parallel()
	dir := bin(t)
	chip := tpmtest.Start(t)
	s := newServer(t)
	b := s.newBoard("dock-9")
	s.stop()
	signers, err := filepath.Abs("../../docs/signers")
	if err != nil {
		t.Fatal(err)
	}
	places := strings.NewReplacer(
		"/var/lib/fulmar-fleet/authority.tss2.pem", filepath.Join(s.dir, "authority.tss2.pem")+","+chip.Path(),
		"/var/lib/fulmar-fleet", s.dir, "/usr/share/fulmar/signers", signers)
	tmp := t.TempDir()
	lines := commands(t, "../../docs/keys.md")
	// Each command of the table's words must be among those that are tried.
	for _, want := range []string{
		"fulmar recovery new", "fulmar key new", "fulmar key rotate", "fulmar-fleet ca init", "fulmar-fleet ca next", "fulmar-fleet ca switch", "fulmar-fleet ca drop",
		"fulmar-fleet ca install", "fulmar-fleet revoke", "fulmar-fleet reset-password", "fulmar-fleet keys show", "fulmar-fleet keys install", "fulmar-fleet keys rotate-command", "fulmar-fleet keys rotate-director", "fulmar-fleet keys add-release", "fulmar-fleet api-token", "fulmar-fleet backup", "fulmar-fleet restore",
	} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, want) }) {
			t.Errorf("docs/keys.md does not show %s", want)
		}
	}
	for _, line := range lines {
		forced := strings.Contains(line, "--force")
		if line == "systemctl restart fulmar-fleet" {
			s.start()
			// Until the authority is forced on them, boards follow by renewing.
			if b != nil {
				if err := b.renew(t); err != nil {
					t.Fatalf("the board does not follow: %v", err)
				}
			}
			s.stop() // swtpm takes one client at a time, the kernel's /dev/tpmrm0 many
			continue
		}
		if forced {
			b = nil
		}
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", places.Replace(line))
		cmd.Dir = tmp
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "PWD="+tmp)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s\n%v: %s", line, err, out)
		}
	}
	if !slices.ContainsFunc(lines, func(l string) bool { return l == "systemctl restart fulmar-fleet" }) {
		t.Error("no restart is shown")
	}
	for _, name := range []string{"release.pem", "root-3.pem", "recovery/fulmar-recovery-private.pem"} {
		if _, err := os.Stat(filepath.Join(tmp, name)); err == nil {
			t.Errorf("%s was not destroyed", name)
		}
	}
}
