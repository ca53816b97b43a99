// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"fulmar/internal/strictjson"
)

// Bounds of a manifest. A board takes one of at most MaxManifest bytes; one that is to go
// in an assignment has to fit there with its signatures (schema/ota.MaxEnvelope).
const (
	MaxManifest   = 64 << 10
	MaxComponents = 16
	MaxFiles      = 256 // of a component
	MaxEncodings  = 8   // of a file
	MaxNeeds      = 16  // components that one needs
	MaxNotes      = 2048
	maxName       = 64
	maxPath       = 200 // bytes of a file's path
	maxWithin     = 24 * 3600
)

// ErrManifest: a manifest that makes no sense, whoever signed it.
var ErrManifest = errors.New("manifest")

// Manifest is a release.
type Manifest struct {
	V       int    `json:"v"`       // 1
	Release string `json:"release"` // its name in rollouts: 1.9.0, parcels-7
	// Epoch is the floor that boards raise to once they have committed any of its components:
	// a release of a lower epoch is never installed again. It rises when an old release has
	// become dangerous, or a release key ends; not with each release.
	Epoch      uint64      `json:"epoch"`
	Notes      string      `json:"notes,omitempty"` // for people
	Components []Component `json:"components"`
}

// Component is one part of a release: what a rollout brings to boards at a time.
type Component struct {
	// Name is agent (fulmard, maybe with its worker's files, which then change in the same
	// moment), worker, config, rootfs or model/NAME.
	Name    string `json:"name"`
	Version string `json:"version"` // as its program or package tells it, in Debian's order
	Files   []File `json:"files"`
	Needs   Needs  `json:"needs,omitzero"`
	Health  Health `json:"health,omitzero"`
}

// File is a file of a component and the encodings in which it can travel; as it is it can
// always.
type File struct {
	Path string `json:"path"` // below the component's folder, with slashes
	Object
	// Unpack: the file is a tar of regular files that stand in its place, next to each other
	// below the component's folder: models have many small ones. Unpacked is their size in all.
	Unpack   bool  `json:"unpack,omitempty"`
	Unpacked int64 `json:"unpacked,omitempty"`

	Encodings []Encoding `json:"encodings,omitempty"` // the first that fits is taken
}

// Encoding is a shorter way to bring an object: a codec of ota/delta, the object that it is
// applied to (From; none for zstd), and what travels instead.
type Encoding struct {
	Codec string `json:"codec"`
	From  *Hash  `json:"from,omitempty"` // SHA-256
	Object
}

// Needs are what a board must have. What is left out is not asked for.
type Needs struct {
	Arch     string `json:"arch,omitempty"`     // arm64, amd64
	Board    string `json:"board,omitempty"`    // what the fact "model" of the board begins with
	L4TMin   string `json:"l4t_min,omitempty"`  // 35.4.1, both ends included
	L4TMax   string `json:"l4t_max,omitempty"`  // 36.4 takes 36.4.3
	TensorRT string `json:"tensorrt,omitempty"` // at least
	// Components are other components of the board and the least version of each.
	Components map[string]string `json:"components,omitempty"`
	Space      int64             `json:"space,omitempty"` // free bytes beside what the release itself takes
}

// Health is how a component has to prove itself on trial; zero fields get the component's
// defaults.
type Health struct {
	WithinS int      `json:"within_s,omitempty"` // it must be healthy at the latest then
	HoldS   int      `json:"hold_s,omitempty"`   // and for so long without a break
	Checks  []string `json:"checks,omitempty"`   // of Checks
	RateMin float64  `json:"rate_min,omitempty"` // share of the frame rate before; 0.8
}

// The checks of a trial.
const (
	CheckProcess  = "process"  // the program runs and its sampler makes progress
	CheckLink     = "link"     // the link is up, where it was before the switch
	CheckDrain    = "drain"    // what waits in the spool gets less, or there is none
	CheckGolden   = "golden"   // the worker has loaded the model: golden pictures and gate passed
	CheckRate     = "rate"     // frames a second are not below RateMin of what they were
	CheckThrottle = "throttle" // the board throttles no more than it did
	CheckBoot     = "boot"     // the system came up from the other slot, and again is marked good
)

// Checks lists them.
func Checks() []string {
	return []string{CheckProcess, CheckLink, CheckDrain, CheckGolden, CheckRate, CheckThrottle, CheckBoot}
}

// With gives the contract of a component with its defaults filled in.
func (h Health) With(component string) Health {
	if h.WithinS == 0 {
		h.WithinS = 600
	}
	if h.HoldS == 0 {
		h.HoldS = 60
	}
	if h.RateMin == 0 {
		h.RateMin = 0.8
	}
	if h.Checks == nil {
		switch {
		case component == "agent":
			h.Checks = []string{CheckProcess, CheckLink, CheckDrain}
		case component == "rootfs":
			h.Checks = []string{CheckProcess, CheckLink, CheckDrain, CheckBoot}
		case component == "worker", strings.HasPrefix(component, "model/"):
			h.Checks = []string{CheckProcess, CheckGolden, CheckRate, CheckThrottle}
		default:
			h.Checks = []string{CheckProcess, CheckLink}
		}
	}
	return h
}

// Parse reads a manifest whose signatures have been verified. [ErrManifest] for what is
// malformed, over a bound, or contradicts itself.
func Parse(payload []byte) (*Manifest, error) {
	m := &Manifest{}
	if err := strictjson.Decode(payload, MaxManifest, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	return m, m.Check()
}

// Encode gives the payload to be signed.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(m)
	if err == nil && len(b) > MaxManifest {
		err = fmt.Errorf("%w of %d bytes, at most %d: fewer files, or small ones in one that is unpacked", ErrManifest, len(b), MaxManifest)
	}
	return b, err
}

// Component gives one by its name, nil where there is none.
func (m *Manifest) Component(name string) *Component {
	for i := range m.Components {
		if m.Components[i].Name == name {
			return &m.Components[i]
		}
	}
	return nil
}

// Check checks the bounds and that it makes sense.
func (m *Manifest) Check() error {
	if m.V != 1 || !Name(m.Release) || len(m.Notes) > MaxNotes || len(m.Components) == 0 || len(m.Components) > MaxComponents {
		return fmt.Errorf("%w of version %d, release %.80q, notes of %d bytes, %d components: wants version 1, a name of 1 to %d letters, digits and .-+~_, at most %d bytes and 1 to %d components",
			ErrManifest, m.V, m.Release, len(m.Notes), len(m.Components), maxName, MaxNotes, MaxComponents)
	}
	seen := map[string]bool{}
	for i := range m.Components {
		c := &m.Components[i]
		if seen[c.Name] {
			return fmt.Errorf("%w: component %s twice", ErrManifest, c.Name)
		}
		seen[c.Name] = true
		if err := c.check(); err != nil {
			return fmt.Errorf("%w: component %.80q: %w", ErrManifest, c.Name, err)
		}
	}
	return nil
}

// ComponentName tells whether a component may be called so.
func ComponentName(s string) bool {
	if model, ok := strings.CutPrefix(s, "model/"); ok {
		return len(s) <= maxName && Name(model)
	}
	return slices.Contains([]string{"agent", "worker", "config", "rootfs"}, s)
}

// Name tells whether a release, version or model may be called so: 1 to 64 letters, digits
// and .-+~_ and not beginning with a dot or dash.
func Name(s string) bool {
	if s == "" || len(s) > maxName || s[0] == '.' || s[0] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune(".-+~_", r))
	})
}

func (c *Component) check() error {
	switch {
	case !ComponentName(c.Name):
		return errors.New("wants agent, worker, config, rootfs or model/NAME")
	case !Name(c.Version):
		return fmt.Errorf("version %.80q", c.Version)
	case len(c.Files) == 0 || len(c.Files) > MaxFiles:
		return fmt.Errorf("%d files, wants 1 to %d", len(c.Files), MaxFiles)
	}
	seen := map[string]bool{}
	for i := range c.Files {
		f := &c.Files[i]
		// One name in two cases of letters would be one file on a stick's file system.
		if key := strings.ToLower(f.Path); seen[key] {
			return fmt.Errorf("file %s twice", f.Path)
		} else {
			seen[key] = true
		}
		if err := f.check(); err != nil {
			return fmt.Errorf("file %.80q: %w", f.Path, err)
		}
	}
	for name := range seen {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if seen[dir] {
				return fmt.Errorf("file %s lies in file %s", name, dir)
			}
		}
	}
	return errors.Join(c.Needs.check(), c.Health.check())
}

// CleanPath tells whether a file of a component may lie there: relative, clean, without
// dots at the beginning of a name, of letters that every file system takes.
func CleanPath(p string) bool {
	if p == "" || len(p) > maxPath || path.Clean(p) != p || path.IsAbs(p) {
		return false
	}
	for name := range strings.SplitSeq(p, "/") {
		if !Name(name) {
			return false
		}
	}
	return true
}

func (f *File) check() error {
	if !CleanPath(f.Path) {
		return errors.New("wants a relative path of letters, digits and .-+~_")
	}
	if f.Unpack != (f.Unpacked > 0) || f.Unpacked < 0 || f.Unpacked > MaxSize {
		return fmt.Errorf("unpack %v with %d bytes unpacked", f.Unpack, f.Unpacked)
	}
	if err := f.Object.check(); err != nil {
		return err
	}
	if len(f.Encodings) > MaxEncodings {
		return fmt.Errorf("%d encodings, at most %d", len(f.Encodings), MaxEncodings)
	}
	for i := range f.Encodings {
		if err := f.Encodings[i].Check(); err != nil {
			return fmt.Errorf("encoding %d: %w", i+1, err)
		}
	}
	return nil
}

// Check checks the bounds.
func (e *Encoding) Check() error {
	if !Name(e.Codec) {
		return fmt.Errorf("codec %.80q", e.Codec)
	}
	return e.Object.check()
}

func (n *Needs) check() error {
	for _, s := range []string{n.Arch, n.Board, n.L4TMin, n.L4TMax, n.TensorRT} {
		if len(s) > maxName {
			return fmt.Errorf("needs %.40q: %d bytes, at most %d", s, len(s), maxName)
		}
	}
	if n.Space < 0 || len(n.Components) > MaxNeeds {
		return fmt.Errorf("needs %d bytes and %d components, at most %d", n.Space, len(n.Components), MaxNeeds)
	}
	for name, version := range n.Components {
		if !ComponentName(name) || !Name(version) {
			return fmt.Errorf("needs %.80q %.80q", name, version)
		}
	}
	return nil
}

func (h *Health) check() error {
	if h.WithinS < 0 || h.WithinS > maxWithin || h.HoldS < 0 || h.HoldS > maxWithin || h.RateMin < 0 || h.RateMin > 1 || len(h.Checks) > len(Checks()) {
		return fmt.Errorf("health within %d s for %d s at %g of the rate, by %d checks", h.WithinS, h.HoldS, h.RateMin, len(h.Checks))
	}
	for _, c := range h.Checks {
		if !slices.Contains(Checks(), c) {
			return fmt.Errorf("health: unknown check %.40q, known are %s", c, strings.Join(Checks(), ", "))
		}
	}
	if w := h.With(""); w.HoldS >= w.WithinS {
		return fmt.Errorf("health: held for %d s within %d s", w.HoldS, w.WithinS)
	}
	return nil
}
