// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package nvidia

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fulmar/internal/disk"
	"fulmar/internal/strictjson"
	"fulmar/ota/install/tree"
)

// MaxBoots is how often a system on trial may boot before it is gone back from: its own
// first boot, and two that a power cut ended.
const MaxBoots = 3

const (
	stateFile = "state.json"
	lockFile  = ".lock"
	maxState  = 16 << 10 // bytes; ours is under 2 KiB
	maxWhy    = 300      // bytes of a reason
	lockWait  = 10 * time.Second
	lockLook  = 50 * time.Millisecond
)

// state is what is kept across both systems.
type state struct {
	V     int        `json:"v"`
	Slots [2]content `json:"slots"`
	Trial *trial     `json:"trial,omitempty"`
	// Done is the newest one that was confirmed, as long as what it replaced is still there.
	Done *trial `json:"done,omitempty"`
	Fell string `json:"fell,omitempty"` // the newest token that was gone back from
	Why  string `json:"why,omitempty"`
}

// content is what is known of a slot's partition.
type content struct {
	Token   string `json:"token,omitempty"`
	Version string `json:"version,omitempty"`
	Size    int64  `json:"size,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
	Written int64  `json:"written,omitempty"` // bytes that are surely there
	Whole   bool   `json:"whole,omitempty"`   // and were read back
	Capsule int64  `json:"capsule,omitempty"` // bytes of the capsule that belongs to it
	Brought bool   `json:"brought,omitempty"` // the capsule is there
}

func (c *content) ready() bool { return c.Whole && (c.Capsule == 0 || c.Brought) }

// trial is a switch: from a slot to the other one.
type trial struct {
	Token string `json:"token"`
	From  int    `json:"from"`
	To    int    `json:"to"`
	Told  bool   `json:"told"` // the firmware has been told
	Boot  string `json:"boot"` // of the board when it was told
	Boots int    `json:"boots,omitempty"`
	Last  string `json:"last,omitempty"` // the newest boot that was counted
}

func (t *trial) valid() bool {
	return t == nil || tree.ValidToken(t.Token) && t.From|1 == 1 && t.To == 1-t.From && t.Boots >= 0
}

func (b *Board) load() (st state, err error) {
	path := filepath.Join(b.State, stateFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{V: 1}, nil
	}
	if err == nil {
		err = strictjson.Decode(raw, maxState, &st)
	}
	if err == nil && (st.V != 1 || !st.Trial.valid() || !st.Done.valid()) {
		err = errors.New("holds what this program does not know")
	}
	if err != nil {
		return state{}, fmt.Errorf("%s: %w; move it away to go on: what the partitions hold is then not known", path, err)
	}
	return st, nil
}

func (b *Board) save(st state) error {
	raw, err := json.Marshal(st)
	if err == nil {
		err = disk.Replace(b.Disk, filepath.Join(b.State, stateFile), 0o600, append(raw, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep the state of the root file systems: %w", err)
	}
	return nil
}

// lock lets one call at a time change anything.
func (b *Board) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(b.State, lockFile), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(lockLook) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return nil, errors.Join(errors.New("another call of fulmar-rootfs is at work"), err, f.Close())
		}
	}
}

func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.ToValidUTF8(s[:min(len(s), maxWhy)], "")
}

// settle looks what the last boots were, and goes back from a system that has used up its
// own. restart: the board has to start again for it.
func (b *Board) settle(ctx context.Context, st *state, s slots) (restart bool, err error) {
	t, boot := st.Trial, b.boot()
	if t == nil {
		return false, nil
	}
	switch {
	case s.current == t.To && boot != t.Last:
		// Also where the word to the firmware was not noted: it was told, or this slot would not run.
		t.Told, t.Last = true, boot
		t.Boots++
		if err := b.save(*st); err != nil || t.Boots <= MaxBoots {
			return false, err
		}
		if err := b.fall(ctx, st, fmt.Sprintf("not confirmed in %d boots", MaxBoots)); err != nil {
			st.Why = clip(err.Error()) // a system that nobody confirmed is better than none
			return false, b.save(*st)
		}
		return true, nil
	case s.current == t.From && t.Told && boot != t.Boot:
		why := fmt.Sprintf("the firmware went back from slot %s to %s (retry_count %d, %s)", slotName(t.To), slotName(t.From), s.retry[t.To], s.status[t.To])
		// The firmware has decided: that it cannot be told so once more changes nothing.
		err := b.activate(ctx, t.From)
		if err != nil {
			why += "; " + err.Error()
		}
		st.Fell, st.Why, st.Trial = t.Token, clip(why), nil
		return false, b.save(*st)
	}
	return false, nil
}

// fall goes back from the trial: first the firmware is told, then it is written down. A cut
// in between is found by the next boot.
func (b *Board) fall(ctx context.Context, st *state, why string) error {
	if err := b.activate(ctx, st.Trial.From); err != nil {
		return err
	}
	st.Fell, st.Why, st.Trial = st.Trial.Token, clip(why), nil
	return b.save(*st)
}

// activate has the firmware boot a slot next, and looks whether it took the word.
func (b *Board) activate(ctx context.Context, n int) error {
	s, err := b.slots(ctx)
	if err != nil || s.active == n {
		return err
	}
	if s.retry[n] == 0 || strings.Contains(s.status[n], "unbootable") {
		return fmt.Errorf("slot %s cannot be booted (retry_count %d, %s): the board stays with %s", slotName(n), s.retry[n], s.status[n], slotName(s.current))
	}
	if _, err := b.nvbootctrl(ctx, "set-active-boot-slot", fmt.Sprint(n)); err != nil {
		return err
	}
	if s, err = b.slots(ctx); err != nil {
		return err
	}
	if s.active != n {
		return fmt.Errorf("nvbootctrl set-active-boot-slot %d did nothing: slot %s is still the active one (is RootfsRedundancyLevel set?)", n, slotName(s.active))
	}
	return nil
}
