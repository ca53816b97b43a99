// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package updates

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/tests/local"
)

// TestModel: a model comes over the air while a camera is looked at, and one whose golden
// pictures it fails is gone back from; fulmard runs on through both.
func TestModel(t *testing.T) {
	t.Parallel() // they mostly wait
	w := newWorld(t, local.Board{Extra: local.SceneYAML})
	good := filepath.Join(w.root, "models/parcels/package")
	if _, err := os.Stat(filepath.Join(good, "model.yaml")); err != nil {
		found, _ := filepath.Glob(filepath.Join(w.root, "models/*/model.yaml"))
		more, _ := filepath.Glob(filepath.Join(w.root, "models/*/*/model.yaml"))
		if found = append(found, more...); len(found) == 0 {
			t.Fatal("no model package in models/")
		}
		good = filepath.Dir(found[0])
	}
	w.unit.mu.Lock()
	pid := w.unit.pid
	w.unit.mu.Unlock()
	begin := time.Now()
	out, code := w.ota("install-bundle", w.bundle("parcels-2", "model/parcels", good, "2", "within=120s,hold=5s,rate=0.5"), "--watch")
	if code != 0 {
		t.Fatalf("%d\n%s", code, out)
	}
	t.Logf("a model in %v\n%s", time.Since(begin).Round(time.Second), out)
	w.told("update/model/parcels", "committed", "rollout local")
	bad := filepath.Join(w.dir, "bad")
	if b, err := exec.Command("cp", "-r", good, bad).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	onnx, _ := filepath.Glob(filepath.Join(bad, "*.onnx"))
	if len(onnx) == 0 {
		t.Fatal("no network in the package")
	}
	for _, p := range onnx { // half of it: what no runtime loads
		st, err := os.Stat(p)
		if err == nil {
			err = os.Truncate(p, st.Size()/2)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	out, code = w.ota("install-bundle", w.bundle("parcels-3", "model/parcels", bad, "3", "within=120s,hold=5s"), "--watch")
	if code != 23 || !strings.Contains(out, "refused") {
		t.Errorf("%d, wants 23 with the worker's refusal\n%s", code, out)
	}
	w.told("update/model/parcels", "rolled-back", "refused")
	w.unit.mu.Lock()
	defer w.unit.mu.Unlock()
	if w.unit.pid != pid {
		t.Error("fulmard was started anew for a model")
	}
}
