// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package nvidia

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"fulmar/ota/install/rootfs/wire"
	"fulmar/ota/install/stamp"
)

// Serve answers one call.
func (b *Board) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	r := bufio.NewReaderSize(in, 64<<10)
	q, err := wire.ReadRequest(r)
	var a wire.Answer
	if err == nil {
		a, err = b.answer(ctx, q, r, out)
	}
	if err != nil {
		a = wire.Answer{Error: clip(err.Error()), Full: errors.Is(err, syscall.ENOSPC)}
	}
	return errors.Join(wire.Write(out, a), err)
}

// call is one that holds the lock and knows how all stands.
type call struct {
	*Board
	st      state
	s       slots
	restart bool // the state asks for one
}

func (b *Board) begin(ctx context.Context) (*call, func(), error) {
	unlock, err := b.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	c := &call{Board: b}
	if c.st, err = b.load(); err == nil {
		c.s, err = b.slots(ctx)
	}
	if err == nil {
		c.restart, err = b.settle(ctx, &c.st, c.s)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return c, unlock, nil
}

func (b *Board) answer(ctx context.Context, q wire.Request, in io.Reader, out io.Writer) (wire.Answer, error) {
	named := slices.Contains([]string{wire.VerbWrite, wire.VerbSwitch, wire.VerbLook, wire.VerbConfirm, wire.VerbBack}, q.Verb)
	if named && !stamp.Valid(q.Token) {
		return wire.Answer{}, fmt.Errorf("%.140q is no token", q.Token)
	}
	c, unlock, err := b.begin(ctx)
	if err != nil {
		return wire.Answer{}, err
	}
	defer unlock()
	switch q.Verb {
	case wire.VerbStatus:
		st := c.status()
		return wire.Answer{Version: st.Version, Status: &st}, nil
	case wire.VerbWrite:
		return wire.Answer{}, c.write(ctx, q, in, out)
	case wire.VerbSwitch:
		restart, err := c.switchTo(ctx, q.Token)
		return wire.Answer{Restart: restart}, err
	case wire.VerbLook:
		s, why, err := c.look(q.Token)
		return wire.Answer{Standing: s, Why: why}, err
	case wire.VerbConfirm:
		return wire.Answer{}, c.confirm(ctx, q.Token)
	case wire.VerbBack:
		restart, err := c.back(ctx, q.Token, q.Why)
		return wire.Answer{Restart: restart}, err
	case wire.VerbSweep:
		return wire.Answer{}, c.sweep(q.Keep)
	case wire.VerbRestart:
		return wire.Answer{}, c.reboot(ctx)
	case wire.VerbSpace:
		need, free, err := c.space(q)
		return wire.Answer{Need: need, Free: free}, err
	}
	return wire.Answer{}, fmt.Errorf("verb %.40q is unknown", q.Verb)
}

// Boot is called at each start of the board, before fulmard: it counts, and where a system on
// trial has used up its boots it restarts the board into the one before.
func (b *Board) Boot(ctx context.Context) (did string, err error) {
	c, unlock, err := b.begin(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if c.restart {
		err := c.reboot(ctx)
		return "went back from " + c.st.Fell + ": " + c.st.Why + "; the board restarts", err
	}
	if t := c.st.Trial; t != nil && c.s.current == t.To {
		return fmt.Sprintf("%s is on trial in slot %s, boot %d of %d", t.Token, slotName(t.To), t.Boots, MaxBoots), nil
	}
	return "slot " + slotName(c.s.current) + " runs", nil
}

// reboot starts the machine anew, in order. Whoever may ask this program may not take the
// machine down whenever it likes: it is done where another system is to be booted.
func (c *call) reboot(ctx context.Context) error {
	t := c.st.Trial
	switched := t != nil && t.Told && c.s.current == t.From // a capsule chooses the slot itself
	if !c.restart && !switched && c.s.active == c.s.current {
		return errors.New("no restart is due: the system that runs is the one that is booted next")
	}
	_, err := c.run(ctx, systemctl, "--no-block", "reboot")
	return err
}

// Status tells how all stands.
func (b *Board) Status(ctx context.Context) (wire.Status, error) {
	c, unlock, err := b.begin(ctx)
	if err != nil {
		return wire.Status{}, err
	}
	defer unlock()
	return c.status(), nil
}

func (c *call) status() wire.Status {
	out := wire.Status{Current: slotName(c.s.current), Active: slotName(c.s.active), BootID: c.boot(), Obstacles: c.obstacles(c.s, 1-c.s.current)}
	out.Proven, _ = c.runsFrom(c.s.current) // what cannot be told is not proven
	for n := range 2 {
		path, _, size, _ := c.device(n) // an obstacle says what is wrong with it
		out.Slots = append(out.Slots, wire.Slot{
			Name: slotName(n), Retry: c.s.retry[n], Status: c.s.status[n], Device: path, Size: size,
			Version: c.st.Slots[n].Version, Token: c.st.Slots[n].Token,
		})
	}
	if t := c.st.Trial; t != nil {
		out.Trial, out.Boots = t.Token, t.Boots
	}
	if out.Version = c.st.Slots[c.s.current].Version; out.Version == "" {
		raw, _ := os.ReadFile(c.path(VersionFile)) // a system may say it, and need not
		if v := strings.TrimSpace(string(raw)); len(v) <= 64 {
			out.Version = v
		}
	}
	for i, o := range out.Obstacles { // an answer is one line of bounded length
		out.Obstacles[i] = clip(o)
	}
	return out
}

// Mend marks the slot that does not run as bootable again.
func (b *Board) Mend(ctx context.Context) (string, error) {
	c, unlock, err := b.begin(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	other := 1 - c.s.current
	name := varStatus + slotName(other) + "-" + nvidiaGUID
	if err := b.setVariable(name, 0, 4); err != nil {
		return "", err
	}
	return "slot " + slotName(other) + " is marked normal again; the firmware gives it its tries at the next start", nil
}

func (c *call) hinder(to int) error {
	if o := c.obstacles(c.s, to); len(o) > 0 {
		return errors.New(strings.Join(o, "; "))
	}
	return nil
}

func (c *call) switchTo(ctx context.Context, token string) (restart bool, err error) {
	t := c.st.Trial
	switch {
	case t != nil && t.Token == token && c.s.current == t.To:
		return false, nil
	case t == nil && c.st.Slots[c.s.current].Token == token && c.st.Fell != token:
		return false, nil
	case t != nil && t.Token != token:
		return false, fmt.Errorf("%s is on trial; it has to be confirmed or gone back from first", t.Token)
	}
	to := 1 - c.s.current
	if x := &c.st.Slots[to]; x.Token != token || !x.ready() {
		return false, fmt.Errorf("%s is not in slot %s: %s is, whole %v; stage it again", token, slotName(to), orNone(x.Token), x.ready())
	}
	if t != nil && t.Told { // told in this boot already, else settle had found something
		return true, nil
	}
	if t == nil {
		if err := c.hinder(to); err != nil {
			return false, err
		}
	}
	c.st.Trial = &trial{Token: token, From: c.s.current, To: to, Boot: c.boot()}
	if err := c.save(c.st); err != nil {
		return false, err
	}
	if c.st.Slots[to].Capsule > 0 {
		err = c.deliver()
	} else {
		err = c.activate(ctx, to)
	}
	if err != nil {
		c.st.Trial = nil
		return false, errors.Join(err, c.save(c.st))
	}
	c.st.Trial.Told = true
	return true, c.save(c.st)
}

func orNone(token string) string {
	if token == "" {
		return "nothing"
	}
	return token
}

func (c *call) look(token string) (string, string, error) {
	t, cur := c.st.Trial, c.s.current
	switch {
	case t != nil && t.Token == token && cur == t.To:
		proven, err := c.runsFrom(cur)
		if err == nil && !proven {
			err = fmt.Errorf("the firmware says that slot %s runs, and / is not on its partition", slotName(cur))
		}
		why := fmt.Sprintf("boot %d of %d", t.Boots, MaxBoots)
		if t.Boots > MaxBoots {
			why += "; it cannot be gone back from: " + c.st.Why
		}
		return wire.OnTrial, why, err
	case t != nil && t.Token == token:
		return wire.NotYet, "the board has to start again", nil
	case c.st.Fell == token:
		return wire.Fallen, c.st.Why, nil
	case c.st.Slots[cur].Token == token:
		return wire.InForce, "", nil
	case c.st.Done != nil && c.st.Done.Token == token:
		return wire.Fallen, fmt.Sprintf("the firmware boots slot %s (of %s: retry_count %d, %s)", slotName(cur), slotName(1-cur), c.s.retry[1-cur], c.s.status[1-cur]), nil
	}
	return wire.NotYet, "", nil
}

func (c *call) confirm(ctx context.Context, token string) error {
	s, why, err := c.look(token)
	if err != nil || s == wire.InForce {
		return err
	}
	if s != wire.OnTrial {
		return fmt.Errorf("%s is %s (%s)", token, s, why)
	}
	// Gone since L4T 35.2, where NVIDIA's service does it at each boot; before, it ends the count.
	_, _ = c.nvbootctrl(ctx, "mark-boot-successful")
	c.st.Done, c.st.Trial, c.st.Fell, c.st.Why = c.st.Trial, nil, "", ""
	return c.save(c.st)
}

func (c *call) back(ctx context.Context, token, why string) (restart bool, err error) {
	t := c.st.Trial
	if t == nil && c.st.Done != nil && c.st.Done.To == c.s.current && c.st.Slots[c.s.current].Token == token {
		t = c.st.Done
	}
	if t == nil || t.Token != token {
		// Gone back from already, and not restarted yet.
		return c.st.Fell == token && c.s.active != c.s.current, nil
	}
	if c.s.current == t.From {
		if err := c.withdraw(t); err != nil {
			return false, err
		}
	}
	if err := c.activate(ctx, t.From); err != nil {
		return false, err
	}
	c.st.Fell, c.st.Why, c.st.Trial, c.st.Done = token, clip(why), nil, nil
	return c.s.current != t.From, c.save(c.st)
}

// sweep forgets what lies in the slot that does not run and is nothing to go back to.
func (c *call) sweep(keep []string) error {
	other := 1 - c.s.current
	x := &c.st.Slots[other]
	if c.st.Trial != nil || c.st.Done != nil && c.st.Done.From == other || x.Token == "" || slices.Contains(keep, x.Token) {
		return nil
	}
	if c.st.Slots[c.s.current].Token == "" && x.Whole {
		return nil // what runs came otherwise: nothing is known of what it would go back to
	}
	*x = content{}
	err := c.save(c.st)
	return errors.Join(err, c.Disk.RemoveAll(filepath.Join(c.State, capsule)))
}

func (c *call) space(q wire.Request) (need, free int64, err error) {
	if q.Capsule > 0 {
		room, err := c.espFree()
		if err != nil || room < q.Capsule {
			return q.Capsule, room, err
		}
	}
	_, _, size, err := c.device(1 - c.s.current)
	return q.Size, size, err
}
