// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"

	"fulmar/command"
	"fulmar/fleet/commands/presence"
	"fulmar/fleet/commands/spec"
	"fulmar/fleet/commands/stage"
	"fulmar/fleet/registry/commandrows"
	"fulmar/internal/fit"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// parcel is one envelope on its way.
type parcel struct {
	key
	hello    uint64
	id       command.ID
	envelope []byte
}

// pump sends what is due, a batch at a time, so that boards' words come in between.
func (c *Commands) pump(ctx context.Context) {
	c.mu.Lock()
	c.greet()
	e := c.edit()
	var out []parcel
	for k := range c.due {
		if len(out) >= maxBatch {
			break
		}
		delete(c.due, k)
		q := c.queues[k]
		n, here := c.here.Here(presence.Board{Tenant: k.tenant, Name: k.board})
		if q == nil || !here {
			continue
		}
		for _, it := range q.next(e.now, n) {
			p, err := e.pack(ctx, it)
			if err != nil {
				c.cfg.Log.Error("a command cannot be signed; tried again", "command", command.ID(it.ID).String(), "board", k.board, "error", err.Error())
				it.again, it.hello = e.now.Add(resendAfter), n
				continue
			}
			p.hello = n
			out = append(out, p)
		}
	}
	err := e.save(ctx)
	if err == nil {
		for _, p := range out {
			if it := c.items[p.id]; it != nil {
				it.hello, it.again = p.hello, e.now.Add(resendAfter+rand.N(resendAfter))
			}
			delete(c.due, p.key)
		}
	} else {
		for _, p := range out {
			c.due[p.key] = struct{}{} // with the next tick
		}
	}
	more := len(c.due) > 0 && err == nil
	c.mu.Unlock()
	if err != nil {
		c.cfg.Log.Error("commands are not sent: that they are cannot be stored; tried again", "error", err.Error())
		return
	}
	for _, p := range out {
		if err := c.cfg.Courier.SendCommand(p.tenant, p.board, p.id.String(), p.envelope); errors.Is(err, ErrAway) {
			c.here.Gone(presence.Board{Tenant: p.tenant, Name: p.board}, p.hello)
		} else if err != nil {
			c.cfg.Log.Warn("a command was not sent; sent again", "board", p.board, "command", p.id.String(), "error", err.Error())
		}
	}
	if more {
		c.nudge()
	}
}

// behind says who gave a command, for the board: user/NAME only for a person who was
// logged in; a board lets nobody else release a safety shutdown. Whoever acts for somebody,
// as a token does, is not that person.
func behind(h *commandrows.Command) string {
	name, isToken := strings.CutPrefix(h.Actor, "token ")
	if isToken || h.Actor != h.Author {
		return fit.Text(command.ByToken+"/"+name, schema.MaxName)
	}
	return fit.Text(command.ByUser+"/"+h.Actor, schema.MaxName)
}

// pack signs what a board is sent, and notes that it is sent. It gets its number when it
// leaves first, the highest on this board; and again when the board says that another
// came before it.
func (e *edit) pack(ctx context.Context, it *item) (parcel, error) {
	k := key{it.Tenant, it.Board.Board}
	cmd := command.Command{
		V: schema.Version, ID: it.ID, Tenant: k.tenant, Board: k.board, Name: it.cmd.Name, Args: it.cmd.Args, Actor: command.ActorFleet,
		Seq: it.Seq, Issued: uint64(e.now.UnixMilli()), Expires: uint64(max(0, it.cmd.Expires.UnixMilli())), DryRun: it.cmd.DryRun, Reason: it.cmd.Reason, By: behind(it.cmd),
	}
	if command.ID(it.Target) != (command.ID{}) {
		args, err := schema.Encode(map[string]string{"id": command.ID(it.Target).String()})
		if err != nil {
			return parcel{}, err
		}
		cmd.Args = args
	}
	fresh := false
	switch {
	case it.Probe:
		cmd.Expires, cmd.Seq, cmd.DryRun = 1, max(1, it.Seq), false
		if it.cmd.Local || cmd.Name == "" {
			cmd.Name, cmd.Args, cmd.Reason, cmd.Seq = spec.NameCancel, nil, "", 1
		}
	case it.Cancel: // its number was overtaken by that of the cancel: it is answered, and not begun
		cmd.Seq = max(1, it.Seq)
	case it.Seq == 0:
		fresh = true
		last := e.c.seqs[k]
		for _, s := range e.change.Seqs {
			if s.Tenant == k.tenant && s.Board == k.board {
				last = max(last, s.Seq)
			}
		}
		cmd.Seq = max(last+1, uint64(e.now.UnixMilli()))
		if it.Tries > 0 {
			cmd.Seq = max(cmd.Seq, last+1<<min(it.Tries, maxTries))
		}
	}
	payload, err := schema.Encode(&cmd)
	if err != nil {
		return parcel{}, err
	}
	envelope, err := e.c.cfg.Sign(payload)
	if err != nil {
		return parcel{}, err
	}
	if fresh {
		b := e.board(it.Board)
		b.Seq = cmd.Seq
		e.touched.boards[b] = true
		e.change.Seqs = append(e.change.Seqs, commandrows.Seq{Tenant: k.tenant, Board: k.board, Seq: cmd.Seq})
		if b.State == rest.CommandQueued {
			if err := e.move(ctx, b, rest.CommandSent, ""); err != nil {
				return parcel{}, err
			}
		}
	}
	return parcel{key: k, id: it.ID, envelope: envelope}, nil
}

// settle lets time pass: what is over is ended, and boards that are silent are told
// again.
func (c *Commands) settle(ctx context.Context) {
	c.mu.Lock()
	e := c.edit()
	n := 0
	for _, it := range c.items {
		if it.hello > 0 && (!stage.Heard(it.Board) || it.Probe) && !e.now.Before(it.again) {
			c.due[key{it.Tenant, it.Board.Board}] = struct{}{}
		}
		state, text := stage.Overdue(it.cmd, it.Board, e.now)
		if state == "" || n >= maxSettle {
			continue
		}
		n++
		if err := e.end(ctx, e.board(it.Board), state, command.CodeLate, text); err != nil {
			c.cfg.Log.Error("a command whose time is over stays open; tried again", "error", err.Error())
			break
		}
	}
	err := e.save(ctx)
	c.mu.Unlock()
	if err != nil {
		c.cfg.Log.Error("commands whose time is over stay open; tried again", "error", err.Error())
	}
	c.nudge()
}
