// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"fulmar/command"
	"fulmar/device/usercommand"
	"fulmar/schema"
)

// childEnd is how long the end of a program may take after its own time, before its
// command is given up.
const childEnd = 3 * time.Second

// userCommands are the commands that were added to the board by the manifests of a folder.
// The error tells of those that are left out.
func userCommands(dir, program string) ([]command.Offer, error) {
	if dir == "" {
		return nil, nil
	}
	all, err := usercommand.Load(dir, program)
	out := make([]command.Offer, len(all))
	for i, c := range all {
		out[i] = offer(c)
	}
	return out, err
}

// sayUserCommands tells of manifests that are left out: a board does all else without them.
func (c *Control) sayUserCommands(user []command.Offer, err error) {
	for _, o := range user {
		if !slices.ContainsFunc(c.commands.Kinds(), func(k command.Kind) bool { return k.User && k.Name == o.Kind.Name }) {
			err = errors.Join(err, fmt.Errorf("user command %s: the board has one of that name", o.Kind.Name))
		}
	}
	if err != nil {
		c.cfg.Log.Error("commands that were added to this board are left out", "err", err)
		c.cfg.Say("user-commands", "refused", schema.SeverityWarn, "commands that were added to this board are left out: "+err.Error())
		return
	}
	if _, err := os.Stat(c.cfg.UserCommands); err == nil { // it may have been refused before
		c.cfg.Say("user-commands", "ok", schema.SeverityInfo, "the commands that were added to this board can be given")
	}
}

// offer makes a manifest a command.
func offer(u *usercommand.Command) command.Offer {
	k := command.Kind{Name: u.Name, Effect: u.Effect}
	for _, f := range u.Args {
		k.Args = append(k.Args, field(f))
	}
	// parsed gives the arguments with the types of the manifest, checked by it too.
	parsed := func(raw []byte) (map[string]any, error) {
		args, err := k.Parse(raw)
		if err == nil {
			if err = u.Check(args); err != nil {
				err = &command.Error{Code: command.CodeArgs, Text: err.Error()}
			}
		}
		return args, err
	}
	call := func(c command.Call) (usercommand.Call, error) {
		args, err := parsed(c.Args)
		return usercommand.Call{ID: c.ID.String(), Actor: c.Answers(), Again: c.Again, Args: args}, err
	}
	h := command.Handler{
		Timeout: u.Timeout + childEnd, Repeat: u.Repeat,
		Check: func(raw []byte) error { _, err := parsed(raw); return err },
		Do: func(ctx context.Context, c command.Call) ([]byte, error) {
			in, err := call(c)
			if err != nil {
				return nil, err
			}
			value, err := u.Do(ctx, in)
			return answer(value, err)
		},
	}
	if u.Lane == usercommand.Long {
		h.Lane = command.Long
	}
	if u.Happened {
		h.Happened = func(ctx context.Context, c command.Call) (bool, []byte, error) {
			in, err := call(c)
			if err != nil {
				return false, nil, err
			}
			yes, value, err := u.WhetherHappened(ctx, in)
			b, err := answer(value, err)
			return yes, b, err
		}
	}
	return command.Offer{Kind: k, Handler: h}
}

func answer(value map[string]any, err error) ([]byte, error) {
	if err != nil || value == nil {
		return nil, err
	}
	return schema.Encode(value)
}

// field describes an argument to those who give it; the manifest's own check is narrower.
func field(f usercommand.Field) command.Field {
	out := command.Field{Name: f.Name, Required: f.Required, Help: f.Help, Choices: f.OneOf}
	switch f.Type {
	case usercommand.Bool:
		out.Type = command.Bool
	case usercommand.Text:
		out.Type = command.Text
	default:
		out.Type, out.Min, out.Max = command.Number, *f.Min, *f.Max
	}
	return out
}
