// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/here"
	"fulmar/cmd/fulmar/local/picture"
	"fulmar/cmd/fulmar/show"
	"fulmar/command"
	"fulmar/internal/cli"
	"fulmar/schema/onboard"
)

// defaultPatience is how long a command is watched if nothing is said: valves move in
// seconds; what takes longer goes on.
const defaultPatience = time.Minute

// giving are the options of give and cancel.
type giving struct {
	reason, key string
	check       bool
	noWait      bool
	timeout     time.Duration
}

func (g *giving) register(c *cobra.Command) {
	c.Flags().StringVar(&g.reason, "reason", "", "why, for those who read the log")
	c.Flags().StringVar(&g.key, "key", "", "sign with a key of role operator: file:PATH or \"exec:PROGRAM ARGUMENTS\"")
	c.Flags().DurationVar(&g.timeout, "timeout", defaultPatience, "how long to watch; the command goes on without")
	cli.Takes(c, "reason", "TEXT")
	cli.Takes(c, "key", "KEY")
	cli.Takes(c, "timeout", "TIME")
}

func (g *giving) wait() int64 {
	if g.noWait {
		return 0
	}
	return max(1, int64(min(g.timeout, onboard.MaxWait)/time.Second))
}

func (k *call) kinds(ctx context.Context) (out []command.Kind, err error) {
	err = k.ask(ctx, "GET", "/v1/kinds", nil, &out)
	return out, err
}

func kindsCommand(socket *string) *cobra.Command {
	return build(socket, rows, &cobra.Command{
		Use: "commands", Short: "the commands that this board has, and what they take", Args: cli.Words(),
	}, func(ctx context.Context, k *call) error {
		kinds, err := k.kinds(ctx)
		if err != nil {
			return err
		}
		slices.SortFunc(kinds, func(a, b command.Kind) int { return strings.Compare(a.Name, b.Name) })
		err = show.Rows(k.stdout, &k.format, kinds,
			show.Column[command.Kind]{Name: "command", Of: func(c command.Kind) string { return c.Name }},
			show.Column[command.Kind]{Name: "arguments", Of: takes},
			show.Column[command.Kind]{Name: "what it does", Of: func(c command.Kind) string { return c.Effect }},
			show.Column[command.Kind]{Name: "lane", Wide: true, Of: func(c command.Kind) string { return c.Lane }},
		)
		if err == nil {
			k.next("fulmar local give COMMAND NAME=VALUE... --reason TEXT")
		}
		return err
	})
}

// takes writes the arguments of a command: NAME=TYPE, in brackets where one may be left out.
func takes(c command.Kind) string {
	var all []string
	for _, a := range c.Args {
		what := strings.ToUpper(string(a.Type))
		if len(a.Choices) > 0 {
			what = strings.Join(a.Choices, "|")
		}
		if a.Required {
			all = append(all, a.Name+"="+what)
		} else {
			all = append(all, "["+a.Name+"="+what+"]")
		}
	}
	return strings.Join(all, " ")
}

func giveCommand(socket *string) *cobra.Command {
	g := new(giving)
	c := &cobra.Command{
		Use: "give COMMAND [NAME=VALUE]...", Short: "give a command to this board, and see how it ends", Args: cobra.MinimumNArgs(1),
		Long: `fulmar local commands tells which there are. The board checks it, writes it down, does it
once, and tells how it ended; the fleet hears of it when it can. Ctrl-C ends the watching,
never the command: fulmar local cancel does.

` + about,
		Example: `  fulmar local give set-valve-position valve=main percent=0 --reason leak
  fulmar local give trigger-safety-shutdown --reason "smoke in hall 4"
  fulmar local give set-output output=pump value=1 --key file:/media/usb/operator.pem`,
		ValidArgsFunction: completeKinds(socket),
	}
	c.Args = func(c *cobra.Command, words []string) error {
		if len(words) == 0 {
			return fmt.Errorf("%w: give wants a COMMAND; fulmar local commands tells them", cli.ErrUsage)
		}
		return nil
	}
	g.register(c)
	c.Flags().BoolVar(&g.check, "check", false, "only ask whether it would be refused")
	c.Flags().BoolVar(&g.noWait, "no-wait", false, "end when the board has written it down")
	return build(socket, value, c, func(ctx context.Context, k *call) error { return give(ctx, k, g, k.words[0], k.words[1:]) })
}

// completeKinds completes the name of a command, then the names of its arguments.
func completeKinds(socket *string) cobra.CompletionFunc {
	return func(c *cobra.Command, words []string, _ string) (out []cobra.Completion, _ cobra.ShellCompDirective) {
		ctx, stop := context.WithTimeout(c.Context(), time.Second) // a person waits at the key
		defer stop()
		kinds, err := (&call{board: open(*socket)}).kinds(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, k := range kinds {
			if len(words) == 0 {
				out = append(out, cobra.CompletionWithDesc(k.Name, k.Effect))
			} else if k.Name == words[0] {
				for _, a := range k.Args {
					out = append(out, cobra.CompletionWithDesc(a.Name+"=", a.Help))
				}
				return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// kind finds a command of the board and reads the arguments that a person typed for it: as
// a JSON object, and as the CBOR that is signed.
func (k *call) kind(ctx context.Context, name string, words []string) (object json.RawMessage, args []byte, err error) {
	kinds, err := k.kinds(ctx)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(kinds, func(c command.Kind) bool { return c.Name == name })
	if i < 0 {
		return nil, nil, fault.New(fault.NotOnBoard, "this board has no command %s", name)
	}
	if object, err = typed(&kinds[i], words); err == nil {
		if args, err = command.FromJSON(object); err == nil {
			_, err = kinds[i].Parse(args)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w; %s", cli.ErrUsage, err, strings.TrimSpace(name+" takes "+takes(kinds[i])))
	}
	return object, args, nil
}

// typed reads NAME=VALUE as the command's fields want it: what is text stays text though it
// looks like a number; a list has commas between its parts.
func typed(kind *command.Kind, words []string) (json.RawMessage, error) {
	all := map[string]any{}
	for _, w := range words {
		name, text, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not of the form NAME=VALUE", w)
		}
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("%s is given twice", name)
		}
		var t command.Type
		if i := slices.IndexFunc(kind.Args, func(f command.Field) bool { return f.Name == name }); i >= 0 {
			t = kind.Args[i].Type
		}
		switch {
		case t == command.Texts:
			all[name] = strings.Split(text, ",")
		case t == command.Bool && (text == "on" || text == "yes"):
			all[name] = true
		case t == command.Bool && (text == "off" || text == "no"):
			all[name] = false
		case t != command.Text && json.Valid([]byte(text)):
			all[name] = json.RawMessage(text)
		default:
			all[name] = text
		}
	}
	return json.Marshal(all)
}

func give(ctx context.Context, k *call, g *giving, name string, words []string) error {
	object, args, err := k.kind(ctx, name, words)
	if err != nil {
		return err
	}
	if g.key != "" {
		return giveSigned(ctx, k, g, name, args)
	}
	return k.carry(ctx, g, "/v1/commands", onboard.Order{Name: name, Args: object, Reason: g.reason, DryRun: g.check, Wait: g.wait()})
}

// carry brings an order to the board and tells how it goes to its end.
func (k *call) carry(ctx context.Context, g *giving, path string, order any) error {
	begun := time.Now()
	t := &teller{k: k}
	last, err := k.follow(ctx, "POST", path, order, t.step)
	for err == nil && !last.Final && !g.noWait && last.ID != "" && ctx.Err() == nil {
		left := g.timeout - time.Since(begun)
		if left < time.Second {
			break
		}
		wait := int64(min(left, onboard.MaxWait) / time.Second)
		last, err = k.follow(ctx, "GET", fmt.Sprintf("/v1/commands/%s?wait_s=%d", last.ID, wait), nil, t.step)
	}
	t.end()
	id := t.last.ID
	switch {
	case ctx.Err() != nil && id != "":
		return fault.New(fault.Unsettled, "no longer watched; the command goes on: fulmar local log, or fulmar local cancel %s", id)
	case err != nil && id != "" && fault.Is(err, fault.BoardAway):
		return fault.New(fault.BoardAway, "command %s was %s when the board went silent: %w", id, t.last.State, err)
	case err != nil:
		return err
	case last.Final || g.noWait:
		return k.ended(ctx, &last, g.check)
	}
	return fault.New(fault.Unsettled, "command %s is %s after %v; it goes on: fulmar local log, or fulmar local cancel %s", id, last.State, g.timeout, id)
}

// teller writes each step of a command once: over the last one on a terminal.
type teller struct {
	k       *call
	last    onboard.Step
	told    string
	written bool
}

func (t *teller) step(s onboard.Step) {
	t.last = s
	line := s.State
	if s.Percent > 0 {
		line += fmt.Sprintf(" %d %%", s.Percent)
	}
	if s.Text != "" && !s.Final {
		line += "  " + show.Clean(s.Text)
	}
	if line == t.told || s.Final || t.k.quiet() {
		return
	}
	t.told = line
	if here.IsTerminal(t.k.stderr) {
		fmt.Fprintf(t.k.stderr, "\r\x1b[K%s\r", line)
		t.written = true
		return
	}
	t.k.say("%s  %s", time.Now().Format(time.TimeOnly), line)
}

func (t *teller) end() {
	if t.written {
		fmt.Fprint(t.k.stderr, "\x1b[K")
	}
}

// ended writes how a command ended, what is true now, and what a person may do.
func (k *call) ended(ctx context.Context, s *onboard.Step, check bool) error {
	if k.quiet() {
		if err := show.JSON(k.stdout, s); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(k.stdout, "%s  %s  %s\n", s.State, show.Clean(s.Name), s.ID)
		if len(s.Value) > 0 {
			fmt.Fprintln(k.stdout, show.Clean(string(s.Value)))
		}
	}
	if err := outcome(s); err != nil {
		return err
	}
	if k.quiet() {
		return nil
	}
	switch {
	case check:
		k.say("nothing was done: %s", show.Clean(s.Text))
	case s.Text != "":
		k.say("%s", show.Clean(s.Text))
	}
	if st, err := k.state(ctx); err == nil && !check { // a key's holder may not look
		k.say("%s", now(&st))
	}
	if s.Final {
		k.next("fulmar local status")
	} else {
		k.next("fulmar local log; fulmar local cancel " + s.ID)
	}
	return nil
}

// now says in one line what is true of the board.
func now(s *onboard.State) string {
	fleet := "the fleet is told"
	if !s.Link.Up() {
		fleet = "the fleet is told when it can be reached (link: " + show.Clean(s.Link.State) + ")"
	}
	var outputs []string
	for _, o := range s.Outputs {
		outputs = append(outputs, show.Clean(o.Name)+" "+picture.Amount(o.Value, o.Unit))
	}
	if len(outputs) > 0 && len(outputs) <= 4 {
		return "now " + strings.Join(outputs, ", ") + "; " + fleet
	}
	return fleet
}

// outcome is the error that a final state is.
func outcome(s *onboard.Step) error {
	code := ""
	if s.Code != "" {
		code = " (" + show.Clean(s.Code) + ")"
	}
	say := func(c fault.Code) error {
		return fault.New(c, "%s%s: %s", s.State, code, show.Clean(s.Text))
	}
	switch s.State {
	case "refused":
		return say(fault.CmdRefused)
	case "failed":
		return say(fault.CmdFailed)
	case "expired":
		return say(fault.CmdExpired)
	case "cancelled":
		return say(fault.CmdEnded)
	case "unknown":
		return say(fault.CmdUnknown)
	}
	return nil
}

func cancelCommand(socket *string) *cobra.Command {
	g := new(giving)
	c := &cobra.Command{
		Use: "cancel ID", Short: "end a command that waits or runs", Args: cli.Words("an ID"),
		Long:    "Part of its effect may be there already: the state of the outputs tells.\n\n" + about,
		Example: "  fulmar local cancel 5f1c02ab9d3e4f60718293a4b5c6d7e8 --reason \"wrong valve\"",
	}
	g.register(c)
	return build(socket, value, c, func(ctx context.Context, k *call) error {
		if g.key != "" {
			return give(ctx, k, g, "cancel", []string{"id=" + k.words[0]})
		}
		var s onboard.Step
		if err := k.ask(ctx, "POST", "/v1/commands/"+path(k.words[0])+"/cancel", onboard.Cancel{Reason: g.reason}, &s); err != nil {
			return err
		}
		t := &teller{k: k}
		if !s.Final {
			var err error
			if s, err = k.follow(ctx, "GET", fmt.Sprintf("/v1/commands/%s?wait_s=%d", s.ID, g.wait()), nil, t.step); err != nil {
				return err
			}
		}
		t.end()
		if s.State == "cancelled" { // as it was asked
			fmt.Fprintf(k.stdout, "%s  %s  %s\n", s.State, show.Clean(s.Name), s.ID)
			k.next("fulmar local status")
			return nil
		}
		if !s.Final {
			return fault.New(fault.Unsettled, "command %s is %s after %v and will end soon: fulmar local log", s.ID, s.State, g.timeout)
		}
		return fault.New(fault.Conflict, "it was over before: %s", errors.Join(errors.New(s.State), outcome(&s)))
	})
}
