// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/release"
	"fulmar/ota/slot"
)

// part is the installer of one component.
type part struct {
	p    *Programs
	name string
}

// Running implements [ota.Installer]. For the agent it is what this process is.
func (c *part) Running(context.Context) (string, error) {
	if c.name == Agent && c.p.self != nil {
		return c.p.mine.Part(Agent), nil
	}
	_, cur, err := c.p.current()
	if err != nil || cur.ID == "" {
		return "", err
	}
	return cur.Part(c.name), nil
}

// Stage implements [ota.Installer]. The token is the slot's ID.
func (c *part) Stage(_ context.Context, rc *release.Component, paths map[string]string) (string, error) {
	if err := check(c.name, rc, paths); err != nil {
		return "", fmt.Errorf("stage %s: %w", c.name, err)
	}
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	_, cur, err := c.p.current()
	if err != nil {
		return "", fmt.Errorf("stage %s: %w", c.name, err)
	}
	sl, files, err := c.compose(&cur, rc, paths)
	if err != nil {
		return "", fmt.Errorf("stage %s: %w", c.name, err)
	}
	n, _ := c.p.notes()
	if cur.ID != "" && n.Started == "" {
		n.Started = workerKey(&cur) // before anything changes
	}
	done, err := c.p.o.Slots.Add(sl, files, c.p.held(&n)...)
	if err != nil {
		return "", fmt.Errorf("stage %s: %w", c.name, err)
	}
	if done.ID != cur.ID { // else it is in force, and there is nothing to know of it
		*n.of(c.name) = note{Token: done.ID, Phase: phaseStaged, Base: cur.ID}
	}
	return done.ID, c.p.save(n)
}

// compose puts a slot together: the component over the slot in force.
func (c *part) compose(cur *slot.Slot, rc *release.Component, paths map[string]string) (slot.Slot, map[string]string, error) {
	files, wants := map[string]string{}, map[string]slot.File{}
	for name := range cur.Files {
		files[name] = c.p.o.Slots.Path(cur.ID, name)
	}
	if _, ok := cur.Files[slot.Agent]; !ok && c.name == Worker {
		return slot.Slot{}, nil, errors.New("there is no slot in force that a worker could join; install the package fulmar-agent or update the agent first")
	}
	agent, worker := cur.Part(Agent), cur.Part(Worker)
	brings := false
	for i := range rc.Files {
		f := &rc.Files[i]
		brings = brings || f.Path == slot.Worker
		// A file that is in force already is not copied.
		want := slot.File{SHA256: f.SHA256.String(), Size: f.Size}
		if wants[f.Path] = want; cur.Files[f.Path] != want {
			files[f.Path] = paths[f.Path]
		}
	}
	if c.name == Agent {
		agent = rc.Version
	}
	if c.name == Worker || brings || worker == "" {
		worker = rc.Version
	}
	version, err := label(agent, worker)
	return slot.Slot{Version: version, Origin: slot.FromOTA, Parts: map[string]string{Agent: agent, Worker: worker}, Files: wants}, files, err
}

// Base implements [ota.Installer].
func (c *part) Base(_ context.Context, sha release.Hash) (string, error) {
	_, cur, err := c.p.current()
	if err != nil {
		return "", err
	}
	for name, f := range cur.Files {
		if f.SHA256 == sha.String() {
			return c.p.o.Slots.Path(cur.ID, name), nil
		}
	}
	return "", fmt.Errorf("%w: slot %s has no file with SHA-256 %s", ota.ErrNoBase, cur.ID, sha)
}

// Switch implements [ota.Installer].
func (c *part) Switch(ctx context.Context, token string) (ota.Restart, error) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	st, cur, err := c.p.current()
	if err != nil {
		return ota.RestartNone, fmt.Errorf("switch to slot %s: %w", token, err)
	}
	n, _ := c.p.notes()
	x := n.of(c.name)
	if st.Current != token {
		switch {
		case x.Token != token:
			return ota.RestartNone, fmt.Errorf("switch to slot %.140q: %s was not staged so (newest: %.140q)", token, c.name, x.Token)
		case x.Base != cur.ID:
			// Somebody installed a package meanwhile: half of what was put together is old.
			return ota.RestartNone, fmt.Errorf("switch to slot %s: it was put together over slot %s, and %s is in force now; stage it again", token, x.Base, cur.ID)
		}
		if err := c.p.o.Slots.Retry(token); err != nil {
			return ota.RestartNone, err
		}
		if err := c.mark(&n, phaseSwitching); err != nil {
			return ota.RestartNone, err
		}
		if _, err := c.p.o.Slots.Switch(token); err != nil {
			return ota.RestartNone, err
		}
		if err := c.mark(&n, phaseSwitched); err != nil {
			return ota.RestartNone, err
		}
	}
	if err := c.p.follow(ctx); err != nil {
		return ota.RestartNone, err
	}
	return c.restart(token), nil
}

func (c *part) mark(n *notes, phase string) error {
	x := n.of(c.name)
	if x.Phase == phase {
		return nil
	}
	x.Phase = phase
	return c.p.save(*n)
}

// restart is what has to start again so that a slot's fulmard is the one that runs.
func (c *part) restart(id string) ota.Restart {
	if c.p.runs(id) {
		return ota.RestartNone
	}
	return ota.RestartProgram
}

// Look implements [ota.Installer].
func (c *part) Look(ctx context.Context, token string) (ota.Standing, string, error) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	st, cur, err := c.p.current()
	if err != nil {
		return ota.NotYet, "", err
	}
	if err := c.p.follow(ctx); err != nil {
		return ota.NotYet, "", err
	}
	n, _ := c.p.notes()
	x := n.of(c.name)
	switch fell := st.Fall != nil && st.Fall.From == token; {
	case st.Current == token && !c.p.runs(token):
		return ota.NotYet, "slot " + token + " is chosen, and this process is of another one: it has to start again", nil
	case st.Current == token && st.Trial:
		if x.Token == token {
			err = c.mark(&n, phaseSwitched) // a cut came before it could be written
		}
		return ota.OnTrial, fmt.Sprintf("start %d of %d", st.Tries, slot.MaxTries), err
	case st.Current == token:
		return ota.InForce, "", nil
	case x.Token == token && x.Phase == phaseStaged:
		return ota.NotYet, "", nil
	case fell:
		return ota.Fallen, st.Fall.Reason, nil
	case x.Token == token && x.Phase == phaseSwitched:
		return ota.Fallen, fmt.Sprintf("slot %s (%s) was put in its place", cur.ID, cur.Version), nil
	}
	return ota.NotYet, "", nil
}

// Confirm implements [ota.Installer].
func (c *part) Confirm(_ context.Context, token string) error {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if !c.p.runs(token) {
		return fmt.Errorf("confirm slot %.140q: this process is of slot %s", token, c.p.o.Self)
	}
	if _, err := c.p.o.Slots.Confirm(token); err != nil {
		return err
	}
	n, _ := c.p.notes()
	x := n.of(c.name)
	if x.Token != token {
		return nil
	}
	*x = note{}
	return c.p.save(n)
}

// Back implements [ota.Installer].
func (c *part) Back(ctx context.Context, token, why string) (ota.Restart, error) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	st, _, err := c.p.o.Slots.State()
	if err != nil {
		return ota.RestartNone, err
	}
	if st.Current == token {
		n, _ := c.p.notes()
		if n.of(c.name).Token == token {
			if err := c.mark(&n, phaseSwitched); err != nil {
				return ota.RestartNone, err
			}
		}
		if st, err = c.p.o.Slots.Back(token, why); err != nil {
			return ota.RestartNone, err
		}
	}
	if err := c.p.follow(ctx); err != nil {
		return ota.RestartNone, err
	}
	return c.restart(st.Current), nil
}

// Sweep implements [ota.Installer].
func (c *part) Sweep(_ context.Context, keep []string) error {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	n, _ := c.p.notes()
	if x := n.of(c.name); x.Phase == phaseStaged && !slices.Contains(keep, x.Token) {
		*x = note{}
		if err := c.p.save(n); err != nil {
			return err
		}
	}
	return c.p.o.Slots.Sweep(append(c.p.held(&n), keep...)...)
}

// Space implements [ota.Installer].
func (c *part) Space(_ context.Context, rc *release.Component) (need, free int64, err error) {
	_, cur, err := c.p.current()
	if err != nil {
		return 0, 0, err
	}
	free, _, block, err := disk.Free(filepath.Dir(c.p.o.Slots.Path("x", "x")))
	if err != nil {
		if free, _, block, err = disk.Free(c.p.o.Slots.Dir()); err != nil {
			return 0, 0, err
		}
	}
	need = slot.Reserve + block*int64(len(rc.Files)+len(cur.Files)+2)
	for i := range rc.Files {
		if have, ok := cur.Files[rc.Files[i].Path]; !ok || have.SHA256 != rc.Files[i].SHA256.String() {
			need += rc.Files[i].Size
		}
	}
	return need, free, nil
}
