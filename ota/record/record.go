// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"fulmar/ota/release"
)

// Bounds of a record.
const (
	// MaxQueue is how many orders wait: one for each component that a release is likely to
	// have on a board. The fleet sends again what has no place.
	MaxQueue = 8
	// MaxComponents is how many components a board remembers: the four programs and 44 models.
	MaxComponents = 48
	MaxReason     = 240     // bytes
	MaxPath       = 2 << 10 // bytes of the words that an update came by
	maxNotes      = 1 << 10 // ota.MaxBefore
	maxToken      = 128     // ota.MaxToken
	maxName       = 128     // bytes of a rollout's or release's name
	maxPasses     = 16      // kinds of states
	maxCount      = 1 << 20
	maxMs         = 1 << 42 // 139 years
)

// ErrDamaged: neither copy of the record, or this one, makes sense.
var ErrDamaged = errors.New("the record of updates is damaged")

// Order is what the board was told, without the manifest's bytes.
type Order struct {
	Rollout   string          `json:"rollout"`
	Component string          `json:"component"`
	Release   string          `json:"release"`
	Attempt   uint64          `json:"attempt"`
	Act       string          `json:"act"`
	Hash      release.Hash    `json:"hash"` // zeros for undo
	Patches   []release.Patch `json:"patches,omitempty"`
	Before    string          `json:"before,omitempty"`
	Local     bool            `json:"local,omitempty"`
	// Lasts is its own deadline from when it was taken, Left what was left of it when this was
	// written, ms.
	Lasts int64 `json:"lasts"`
	Left  int64 `json:"left"`
	// Unnumbered: a person's at the board; Attempt is not raised by it.
	Unnumbered bool `json:"unnumbered,omitempty"`
}

// Work is the update in work.
type Work struct {
	Order

	State  string         `json:"state"`
	Since  int64          `json:"since"`  // ms that it has been in the state, for people
	Ends   int64          `json:"ends"`   // what is left of the state's deadline, ms
	Passes map[string]int `json:"passes"` // how often it came by each state
	Boots  int            `json:"boots"`  // of the machine, since it began

	Epoch  uint64 `json:"epoch,omitempty"`  // of the manifest
	Under  uint64 `json:"under,omitempty"`  // the floor when it began
	Token  string `json:"token,omitempty"`  // of the installer, from Ready on
	Was    string `json:"was,omitempty"`    // release that ran when it began
	Notes  []byte `json:"notes,omitempty"`  // of the gate, from Switching on
	Reason string `json:"reason,omitempty"` // why it waits, or goes back
	Path   string `json:"path,omitempty"`   // the words of the states that it came by, for people

	// Asked is what it asked to start again (ota.Restart), in which boot.
	Asked   uint8  `json:"asked,omitempty"`
	AskedIn uint64 `json:"asked_in,omitempty"`
	// Free and There are how much space there has to be before it goes on, where it is brought
	// and where it is installed, bytes: the disk was full.
	Free  int64 `json:"free,omitempty"`
	There int64 `json:"there,omitempty"`
}

// Version is something that was put in force.
type Version struct {
	Rollout string       `json:"rollout,omitempty"`
	Release string       `json:"release"`
	Hash    release.Hash `json:"hash,omitzero"` // of its manifest
	// Epoch is that of its manifest; of what came otherwise, the floor under which it ran. Below
	// the floor nobody goes back to it.
	Epoch uint64 `json:"epoch,omitempty"`
	Token string `json:"token,omitempty"` // of the installer; none: it came otherwise
}

// Component is what is remembered of one.
type Component struct {
	Attempt uint64 `json:"attempt"` // highest that was ever begun
	Rollout string `json:"rollout"`
	Release string `json:"release"` // of the order
	Word    string `json:"word"`    // last word on it; "" none yet
	Reason  string `json:"reason,omitempty"`
	Untold  bool   `json:"untold,omitempty"` // the fleet has not been told
	Was     string `json:"was,omitempty"`    // what ran, where nothing was put in force by this

	Runs   *Version `json:"runs,omitempty"`
	Past   *Version `json:"past,omitempty"` // what ran before it
	Shadow *Version `json:"shadow,omitempty"`

	// Failed is how often this manifest failed under this attempt.
	FailedHash release.Hash `json:"failed_hash,omitzero"`
	Failed     int          `json:"failed,omitempty"`
}

// Record is all of it.
type Record struct {
	V int `json:"v"` // 1
	// Boot and Mono are when it was written: the boot's number and CLOCK_BOOTTIME, ns. No wall
	// clock is in it.
	Boot uint64 `json:"boot"`
	Mono int64  `json:"mono"`

	Work       *Work                 `json:"work,omitempty"`
	Queue      []Order               `json:"queue,omitempty"`
	Components map[string]*Component `json:"components,omitempty"`
	// Unsure: this is not all that ever was: of a component that is not in it the highest
	// attempt is not known. Lost: because it was damaged.
	Unsure bool `json:"unsure,omitempty"`
	Lost   bool `json:"lost,omitempty"`
	// Owed is an epoch that was committed and to which the floor could not be raised yet.
	Owed uint64 `json:"owed,omitempty"`
}

// Encode gives the payload.
func (r *Record) Encode() ([]byte, error) {
	r.V = 1
	if err := r.check(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // six bytes for one in reasons
	err := e.Encode(r)
	if err == nil && b.Len() > maxPayload {
		err = fmt.Errorf("a record of %d bytes, at most %d", b.Len(), maxPayload)
	}
	return b.Bytes(), err
}

// Parse reads a payload. [ErrDamaged].
func Parse(payload []byte) (*Record, error) {
	r := &Record{}
	d := json.NewDecoder(bytes.NewReader(payload))
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return r, nil
}

func (r *Record) check() error {
	if r.V != 1 || r.Mono < 0 || len(r.Queue) > MaxQueue || len(r.Components) > MaxComponents {
		return fmt.Errorf("record of version %d with %d orders and %d components", r.V, len(r.Queue), len(r.Components))
	}
	if r.Work != nil {
		if err := r.Work.check(); err != nil {
			return err
		}
	}
	for i := range r.Queue {
		if err := r.Queue[i].check(); err != nil {
			return err
		}
	}
	for name, c := range r.Components {
		if !release.ComponentName(name) || c == nil {
			return fmt.Errorf("component %.80q", name)
		}
		if err := c.check(); err != nil {
			return fmt.Errorf("component %s: %w", name, err)
		}
	}
	return nil
}

func (o *Order) check() error {
	switch {
	case !name(o.Rollout) || !name(o.Release) || len(o.Before) > maxName || !release.ComponentName(o.Component) || o.Attempt == 0 && !o.Unnumbered:
		return fmt.Errorf("order of rollout %.80q, component %.80q, release %.80q, attempt %d", o.Rollout, o.Component, o.Release, o.Attempt)
	case !slices.Contains([]string{release.ActInstall, release.ActShadow, release.ActUndo}, o.Act), (o.Act == release.ActUndo) != (o.Hash == release.Hash{}):
		return fmt.Errorf("order to %.40q manifest %s", o.Act, o.Hash)
	case len(o.Patches) > release.MaxPatches, o.Left < 0, o.Left > maxMs, o.Lasts < 0, o.Lasts > maxMs:
		return fmt.Errorf("order with %d patches and %d ms left", len(o.Patches), o.Left)
	}
	for i := range o.Patches {
		if err := o.Patches[i].Check(); err != nil {
			return fmt.Errorf("order: patch %d: %w", i+1, err)
		}
	}
	return nil
}

func (w *Work) check() error {
	if err := w.Order.check(); err != nil {
		return err
	}
	if w.State == "" || len(w.State) > 32 || len(w.Passes) > maxPasses || w.Ends < 0 || w.Ends > maxMs || w.Since < 0 || w.Since > maxMs || w.Boots < 0 || w.Boots > maxCount ||
		len(w.Token) > maxToken || len(w.Was) > maxName || len(w.Notes) > maxNotes || len(w.Reason) > MaxReason || len(w.Path) > MaxPath || w.Free < 0 || w.There < 0 {
		return fmt.Errorf("work in state %.40q with %d passes, %d ms left", w.State, len(w.Passes), w.Ends)
	}
	for s, n := range w.Passes {
		if len(s) > 32 || n < 0 || n > maxCount {
			return fmt.Errorf("work passed %.40q %d times", s, n)
		}
	}
	return nil
}

func (c *Component) check() error {
	if len(c.Rollout) > maxName || len(c.Release) > maxName || len(c.Was) > maxName || len(c.Word) > 32 || len(c.Reason) > MaxReason || c.Failed < 0 || c.Failed > maxCount {
		return fmt.Errorf("rollout %.80q, release %.80q, word %.40q", c.Rollout, c.Release, c.Word)
	}
	for _, v := range []*Version{c.Runs, c.Past, c.Shadow} {
		if v != nil && (len(v.Rollout) > maxName || len(v.Release) > maxName || len(v.Token) > maxToken) {
			return fmt.Errorf("version %.80q of rollout %.80q", v.Release, v.Rollout)
		}
	}
	return nil
}

func name(s string) bool { return s != "" && len(s) <= maxName }

// Clip makes a reason one line of bounded length.
func Clip(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	return strings.ToValidUTF8(s[:min(len(s), MaxReason)], "")
}

// Mem gives what is remembered of a component, making room for it: of more than
// [MaxComponents] the one goes of which the least is known.
func (r *Record) Mem(component string) *Component {
	if c := r.Components[component]; c != nil {
		return c
	}
	if r.Components == nil {
		r.Components = map[string]*Component{}
	}
	for len(r.Components) >= MaxComponents {
		least := ""
		for name, c := range r.Components {
			if least == "" || c.worth() < r.Components[least].worth() || c.worth() == r.Components[least].worth() && name < least {
				least = name
			}
		}
		delete(r.Components, least)
	}
	c := &Component{}
	r.Components[component] = c
	return c
}

// worth orders components by what would be lost with them.
func (c *Component) worth() uint64 {
	switch {
	case c.Untold:
		return 1<<63 | c.Attempt>>2
	case c.Runs != nil && c.Runs.Token != "" || c.Shadow != nil:
		return 1<<62 | c.Attempt>>2
	}
	return c.Attempt >> 2
}

// Clone gives a copy that shares nothing.
func (r *Record) Clone() (*Record, error) {
	b, err := r.Encode()
	if err != nil {
		return nil, err
	}
	return Parse(b)
}
