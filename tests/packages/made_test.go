// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"fulmar/agent/config"
	"fulmar/fleet"
)

// TestSameBytes: the same programs give the same packages, whenever and wherever.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	dir := debs(t)
	again := t.TempDir()
	programs := filepath.Join(again, "elsewhere")
	if out, err := exec.Command("cp", "-r", filepath.Join(dir, "programs", v1, "amd64"), programs).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if err := pack(top, programs, "amd64", v1, again); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		f := n + "_" + v1 + "_amd64.deb"
		if sum(t, filepath.Join(again, f)) != sum(t, filepath.Join(dir, "debs", f)) {
			t.Errorf("%s has other bytes the second time", f)
		}
	}
}

// TestLintian: Debian's own judge finds no error; what is overridden has a reason beside it.
func TestLintian(t *testing.T) {
	t.Parallel()
	dir := debs(t)
	if _, err := exec.LookPath("lintian"); err != nil {
		skip(t, "needs lintian; type: cross/need lintian")
	}
	args := []string{"--fail-on", "error", "--allow-root", "--suppress-tags", "uses-no-compression-for-data-tarball"}
	for _, n := range names {
		args = append(args, filepath.Join(dir, "debs", n+"_"+v1+"_amd64.deb"))
	}
	out, err := exec.Command("lintian", args...).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// TestScripts: the scripts are POSIX and without what shellcheck knows to be wrong.
func TestScripts(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("shellcheck"); err != nil {
		skip(t, "needs shellcheck; type: cross/need shellcheck")
	}
	files, err := filepath.Glob(filepath.Join(top, "cross/package/*/p*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 7 {
		t.Errorf("%d maintainer scripts, wants 7: %v", len(files), files)
	}
	for _, f := range []string{"build", "bundle", "install"} {
		files = append(files, filepath.Join(top, "cross/package", f))
	}
	if out, err := exec.Command("shellcheck", files...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// uncommented takes the # from the keys of a config and leaves the words for people.
func uncommented(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`(?m)^#( *(- )?[a-z_{])`)
	if loose := regexp.MustCompile(`(?m)^[^#\n]`).Find(text); loose != nil {
		t.Errorf("%s sets something: a line begins with %q", path, loose)
	}
	return key.ReplaceAllFunc(text, func(m []byte) []byte {
		if strings.HasPrefix(string(m), "# ") && !strings.HasPrefix(string(m), "#  ") {
			return m // words
		}
		return m[1:]
	})
}

// TestConfigs: what the packages put into /etc/fulmar says nothing but defaults, and every
// key in it is one that the programs know.
func TestConfigs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fulmard.yaml")
	text := bytes.Replace(uncommented(t, filepath.Join(top, "cross/package/agent/fulmard.yaml")), []byte(`address: ""`), []byte("address: fleet.example.com:8443"), 1)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Models) != 1 || len(c.Cameras) != 1 || c.Fleet.TokenFile != "/etc/fulmar/join-token" {
		t.Errorf("without its # it says %+v", c)
	}

	asIs := fleet.Default()
	if err := fleet.Load(filepath.Join(top, "cross/package/fleet/fleet.yaml"), &asIs); err != nil {
		t.Fatal(err)
	}
	if err := asIs.Validate(); err != nil {
		t.Errorf("as it is installed: %v", err)
	}

	path = filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(path, uncommented(t, filepath.Join(top, "cross/package/fleet/fleet.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	got := fleet.Default()
	if err := fleet.Load(path, &got); err != nil {
		t.Fatal(err)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	want := fleet.Default()
	if got.Data != want.Data || got.Listen != want.Listen || got.MQTT != want.MQTT || got.Keep != want.Keep || got.Foreign != want.Foreign {
		t.Errorf("without its # it says %+v, wants the defaults %+v", got, want)
	}
	if len(got.Telemetry.RemoteWrite) != 0 || got.Telemetry.Traces.URL != "" {
		t.Errorf("without its # it tells others: %+v", got.Telemetry)
	}
	got.Telemetry.RemoteWrite, got.Telemetry.Traces = nil, want.Telemetry.Traces
	if d := want.Telemetry.WithDefaults(); !reflect.DeepEqual(got.Telemetry, d) {
		t.Errorf("without its # it says %+v of telemetry, the defaults are %+v", got.Telemetry, d)
	}
}
