// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "fulmar"

// pkg is the part of `go list -json` that the rules look at.
type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	Doc          string
	Imports      []string
	Deps         []string
	CgoFiles     []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Dir,Name,Doc,Imports,Deps,CgoFiles,GoFiles,TestGoFiles,XTestGoFiles"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

// edges is the table of DESIGN 2: who may import whom. A key stands for itself
// and its children; the longest key that fits a package decides. "+" after a
// value means the package and its children. Everybody may import schema and,
// where it says so, internal.
var edges = map[string][]string{
	"schema":             {},
	"schema/rest":        {}, // the words of the API: of fleet and of the command line, never of a board
	"internal":           {"schema"},
	"storage":            {"storage+"},
	"link":               {"link+"},
	"tpm":                {"tpm+"},
	"device":             {"device+"},
	"device/output/mqtt": {"link/guard"}, // between a broker and the MQTT client, as on the link
	"inference/worker":   {},
	"inference":          {"inference+", "storage", "models+"},
	"trust":              {},
	"trust/chain":        {"trust"},
	"command":            {"command+", "storage/journal"},
	"twin":               {"twin+"}, // pure: who signs and what is kept is the caller's
	"ota":                {"ota+", "storage", "trust"},
	"ota/slot":           {},
	"ota/release":        {"trust"}, // read by boards, the fleet and the command line, who all judge a signed manifest by the one rule of Open
	"ota/delta":          {"ota/delta/internal+"},
	"ota/delta/make":     {"ota/delta+"},
	"ota/install":        {"ota+"},
	"ota/install/site":   {"ota+", "device/child"},
	"agent":              {"agent+", "command+", "twin+", "storage/journal", "ota+", "inference/worker", "device+", "link", "storage", "storage/vault", "tpm", "tpm/attest", "tpm/floor", "trust"},
	"models":             {"models+"},
	"fleet/ca":           {"trust"},
	"fleet/access":       {},
	"fleet/entrance":     {"fleet/access", "fleet/api", "fleet/registry/accounts", "fleet/web"},
	"fleet/joins":        {"fleet+", "twin/wire"}, // fits parts to each other: it may know all of them
	"fleet/query":        {},
	"fleet/audit":        {"fleet/store", "trust", "trust/chain"},
	"fleet/enrol":        {"fleet/ca", "fleet/registry+", "fleet/audit", "tpm/attest"},
	"fleet/proof":        {"fleet/registry+", "tpm/attest"},
	"fleet/rollout":      {"fleet/rollout+", "fleet/access", "fleet/registry/rollouts"},                 // the logic itself imports its children alone
	"fleet/registry":     {"fleet/registry+", "fleet/ca", "fleet/store", "fleet/audit", "fleet/access"}, // store: how a database file is opened
	"fleet/web":          {"fleet/web+", "fleet/access", "fleet/query+"},
	"fleet/store":        {"fleet/store+", "fleet/web"},
	"fleet/ingest":       {"fleet/ingest+", "fleet/store+"},
	"fleet/telemetry":    {"fleet/telemetry+", "fleet/web", "fleet/web/words"}, // web: what a look at the fleet says of a board
	"fleet/twins":        {"fleet/twins+", "fleet/registry/twinrows", "fleet/store", "fleet/audit", "fleet/access", "fleet/query", "twin+", "trust"},
	"fleet/commands":     {"fleet/commands+", "fleet/registry/commandrows", "fleet/store", "fleet/audit", "fleet/access", "fleet/query", "command", "trust"},
	"fleet/keyring":      {"trust"},
	"fleet/objects":      {"ota/release", "fleet/gateway/pieces"},
	"fleet/gateway":      {"fleet/gateway/pieces", "ota/release", "command", "twin/wire", "fleet/ingest", "fleet/ca", "link/guard"}, // and gateway/foreign: what a client of a broker needs on either side
	"fleet/api":          {"fleet/api+", "fleet/access", "fleet/query+", "fleet/web+", "fleet/store", "fleet/ca", "fleet/ingest", "fleet/registry", "fleet/registry/idem", "fleet/enrol", "fleet/audit"},
	"fleet":              {"fleet+", "tpm", "tpm/attest", "trust"},
	"cmd/fulmar/local":   {"cmd/fulmar+", "command", "trust"},
	"cmd/fulmar":         {"cmd/fulmar+", "device", "device/jetson", "storage/salvage", "storage/vault", "tpm", "tpm/attest", "tpm/floor", "trust", "trust/chain", "ota/release", "ota/bundle", "ota/delta+"},
	"cmd/fulmard":        {"agent+", "device", "device/child"},
	"cmd/fulmar-infer":   {"inference+", "storage", "models+"},
	"cmd/fulmar-fleet":   {"cmd/fulmar-fleet+", "fleet+", "trust", "trust/chain", "ota/delta/make"},
	"cross":              {},
	"cross/man":          {"schema/rest", "cmd/fulmar/commands", "cmd/fulmar/fault", "cmd/fulmar-fleet/commands", "agent/config"},
	"tests":              {"+"}, // tests may look at everything

	"fleet/query/boards":  {"fleet/query", "fleet/web+"},
	"fleet/registry/meta": {"fleet/store", "fleet/audit", "fleet/access", "fleet/query"},
	"fleet/alerts":        {"fleet/alerts+", "fleet/registry/alertrows", "fleet/store", "fleet/audit", "fleet/access", "fleet/query+", "fleet/web+"},
	"fleet/alerts/hooks":  {"fleet/registry/alertrows", "fleet/store", "fleet/audit", "fleet/access"},

	"cmd/fulmar-rootfs":          {"ota/install/rootfs+"}, // root's: no more than it needs
	"cmd/fulmar-launch":          {"ota/slot"},            // the standard library beside it: it must start where nothing else does
	"fleet/releases":             {"fleet/registry/releaserows", "fleet/access", "ota/release", "trust"},
	"fleet/releases/releasetest": {"fleet/releases", "fleet/keyring", "fleet/access", "ota/release", "trust"},
	"fleet/director":             {"fleet/registry/releaserows", "ota/release", "trust"},
	"fleet/updates":              {"fleet+", "ota/release", "trust"}, // fits the parts of an update to each other

}

func allowed(from, to string) bool {
	if to == "schema" || to == "schema/ota" || to == "schema/onboard" && (strings.HasPrefix(from, "agent") || strings.HasPrefix(from, "cmd/fulmar/") || strings.HasPrefix(from, "tests/")) || to == "schema/rest" && (strings.HasPrefix(from, "fleet") || strings.HasPrefix(from, "cmd/fulmar/") || strings.HasPrefix(from, "cmd/fulmar-fleet/") || strings.HasPrefix(from, "tests/")) || strings.HasPrefix(to, "internal/") && from != "schema" {
		return true
	}
	rule := ""
	for k := range edges {
		if (from == k || strings.HasPrefix(from, k+"/")) && len(k) > len(rule) {
			rule = k
		}
	}
	for _, v := range edges[rule] {
		base, children := strings.CutSuffix(v, "+")
		if to == base || base == "" || children && strings.HasPrefix(to, base+"/") {
			return true
		}
	}
	return false
}

func TestEdges(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./...") {
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module+"/")
			if ours && !allowed(from, to) {
				t.Errorf("%s imports %s: not in the edge table (internal/house)", from, to)
			}
		}
	}
}

// TestEdgesCanFail holds the rule itself to a known wrong arrow.
func TestEdgesCanFail(t *testing.T) {
	t.Parallel()
	for _, bad := range [][2]string{{"schema", "storage"}, {"link", "storage"}, {"fleet/web", "fleet/store"}, {"agent", "inference"}, {"cmd/fulmard", "inference"}} {
		if allowed(bad[0], bad[1]) {
			t.Errorf("%s -> %s is allowed", bad[0], bad[1])
		}
	}
}

// links says what each program must never link, and why.
var links = map[string]map[string]string{
	"cmd/fulmard": {
		"gorgonia.org/tensor":              "costs 8 MB of binary and 5 MB RSS: only fulmar-infer may",
		"github.com/yalue/onnxruntime_go":  "a static binary cannot load it: only fulmar-infer may",
		"github.com/mochi-mqtt/server/v2":  "the broker is the fleet's",
		"modernc.org/sqlite":               "the database is the fleet's",
		"fulmar/inference":                 "the worker's insides stay in the worker",
		"fulmar/fleet":                     "the server stays in the server",
		"fulmar/schema/rest":               "boards speak MQTT",
		"html/template":                    "pages are the fleet's",
		"github.com/chromedp/chromedp":     "tests only",
		"fulmar/ota/delta/make":            "the fleet makes patches, a board applies them",
		"github.com/spf13/cobra":           "a board pays for every byte; its few commands need no more than flag",
		"github.com/expr-lang/expr":        "tests only: it calls methods by name, so the linker keeps all of them, 2.6 MB",
		"google.golang.org/protobuf/proto": "with client_golang, which brings it, 2.0 MB of binary and 2.4 MB of memory: agent/scrape writes the text format itself",
	},
	"cmd/fulmar-infer": {
		"github.com/spf13/cobra": "a machine starts it; its few commands need no more than flag",
	},
	"cmd/fulmar": {
		"gorgonia.org/tensor":             "it reads spools, no more",
		"github.com/yalue/onnxruntime_go": "it reads spools, no more",
		"modernc.org/sqlite":              "the database is the fleet's",
		"fulmar/agent":                    "it runs at a desk, not on a board",
		"fulmar/fleet":                    "it must work without a server",
	},
	"cmd/fulmar-launch": {
		"net":                    "it starts programs and speaks to nobody",
		"golang.org/x/sys/unix":  "the standard library alone: what is not there cannot break it",
		"fulmar/agent":           "it must work where the agent does not",
		"github.com/spf13/cobra": "it is what must still work when all else does not: flag is enough",
	},
	"cmd/fulmar-rootfs": {
		"golang.org/x/sys/unix":    "it is root: the standard library alone",
		"github.com/goccy/go-yaml": "it reads no config",
		"fulmar/agent":             "it must work where the agent does not",
	},
	"cmd/fulmar-fleet": {
		"gorgonia.org/tensor":             "the fleet runs no model",
		"github.com/yalue/onnxruntime_go": "the fleet runs no model",
		"fulmar/agent":                    "the board stays on the board",
		"github.com/chromedp/chromedp":    "tests only",
	},
}

func TestLinks(t *testing.T) {
	t.Parallel()
	for program, bad := range links {
		p := list(t, "./"+program)[0]
		for dep, why := range bad {
			if slices.Contains(p.Deps, dep) {
				t.Errorf("%s links %s: %s", program, dep, why)
			}
		}
	}
}

// TestCgo: cgo is in the inference bridges only, so that the other programs stay static.
func TestCgo(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./...") {
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		if len(p.CgoFiles) > 0 && from != "inference/ort" && from != "inference/trt" {
			t.Errorf("%s uses cgo: %v; only inference/ort and inference/trt may", from, p.CgoFiles)
		}
	}
}
