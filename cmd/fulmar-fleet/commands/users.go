// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"fulmar/fleet/access"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/accounts"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

// userWork is one command about people: it gets their accounts and who works here.
type userWork func(ctx context.Context, who *accounts.Accounts, by access.Caller, words []string) error

func (d *desk) userCommand() *cobra.Command {
	c := cli.Group(&cobra.Command{
		Use: "user", Short: "the people who may log in, and what they may do",
		Long: `Roles, each with all that the one before it may: viewer looks; operator names boards,
sends commands and keeps alerts; releaser plans, starts and halts rollouts; admin lets
boards and people in.`,
	})
	c.AddCommand(d.userAdd(), d.userList(), d.userReset(),
		d.onUser("remove NAME", "take a user away, with sessions and tokens", "  fulmar-fleet user remove m.kern",
			func(ctx context.Context, who *accounts.Accounts, by access.Caller, w []string) error {
				return who.Remove(ctx, by, w[0])
			}),
		d.onUser("role NAME ROLE", "give a user another role, felt at once", "  fulmar-fleet user role m.kern releaser",
			func(ctx context.Context, who *accounts.Accounts, by access.Caller, w []string) error {
				return who.SetRole(ctx, by, w[0], rest.Role(w[1]))
			}),
		d.onUser("disable NAME", "shut a user out, now; what is theirs stays", "  fulmar-fleet user disable m.kern",
			func(ctx context.Context, who *accounts.Accounts, by access.Caller, w []string) error {
				return who.Disable(ctx, by, w[0], true)
			}),
		d.onUser("enable NAME", "let a user in again", "  fulmar-fleet user enable m.kern",
			func(ctx context.Context, who *accounts.Accounts, by access.Caller, w []string) error {
				return who.Disable(ctx, by, w[0], false)
			}),
		d.onUser("require ROLE", "want a second factor from a role on; off wants it of nobody", "  fulmar-fleet user require releaser",
			func(ctx context.Context, who *accounts.Accounts, by access.Caller, w []string) error {
				if w[0] == "off" {
					w[0] = ""
				}
				return who.RequireTOTP(ctx, by, rest.Role(w[0]))
			}))
	return c
}

// onUser makes a command whose words are the capital ones of use and that says nothing
// when all went well.
func (d *desk) onUser(use, short, example string, do userWork) *cobra.Command {
	var words []string
	for _, w := range strings.Fields(use)[1:] {
		words = append(words, "a "+w)
	}
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: cli.Words(words...), ValidArgsFunction: cli.Nothing,
		RunE: func(c *cobra.Command, words []string) error { return d.users(c, words, do) },
	}
}

// users runs do and puts its error into words.
func (d *desk) users(c *cobra.Command, words []string, do userWork) error {
	return d.tool(func(reg *registry.Registry) error {
		err := do(c.Context(), reg.Accounts(), accounts.OnConsole(person()), words)
		if errors.Is(err, accounts.ErrUnknown) {
			return fmt.Errorf("%s: no user of this name; fulmar-fleet user list tells all", strings.Join(words, " "))
		}
		if err != nil {
			return fmt.Errorf("user %s: %w", c.Name(), err)
		}
		return nil
	})
}

func (d *desk) userAdd() *cobra.Command {
	var role string
	c := d.onUser("add NAME", "make a user, with a one-time password", "  fulmar-fleet user add m.kern --role operator", nil)
	c.RunE = func(c *cobra.Command, words []string) error {
		return d.users(c, words, func(ctx context.Context, who *accounts.Accounts, by access.Caller, w []string) error {
			pw, err := who.AddUser(ctx, by, w[0], rest.Role(role))
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), pw)
			fmt.Fprintf(c.ErrOrStderr(), "one-time password of %s, shown this once; the page asks for a new one\n", w[0])
			return nil
		})
	}
	c.Flags().StringVar(&role, "role", string(rest.Viewer), "what they may do")
	var all []string
	for _, r := range rest.Roles() {
		all = append(all, string(r))
	}
	cli.Values(c, "role", all...)
	return c
}

func (d *desk) userReset() *cobra.Command {
	var factor bool
	c := d.onUser("reset NAME", "give a user a one-time password; their sessions end", "  fulmar-fleet user reset m.kern\n  fulmar-fleet user reset m.kern --second-factor", nil)
	c.RunE = func(c *cobra.Command, words []string) error {
		return d.users(c, words, func(ctx context.Context, who *accounts.Accounts, by access.Caller, w []string) error {
			if factor {
				if err := who.DropTOTP(ctx, by, w[0]); err != nil {
					return err
				}
				fmt.Fprintf(c.ErrOrStderr(), "%s logs in with the password alone from now on; all sessions have ended\n", w[0])
				return nil
			}
			pw, err := who.Reset(ctx, by, w[0])
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), pw)
			fmt.Fprintf(c.ErrOrStderr(), "one-time password of %s, shown this once; all sessions have ended\n", w[0])
			return nil
		})
	}
	c.Flags().BoolVar(&factor, "second-factor", false, "take the second factor off instead, for who lost the phone and the recovery codes")
	return c
}

func (d *desk) userList() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "who may log in", Args: cli.Words(), ValidArgsFunction: cli.Nothing, Example: "  fulmar-fleet user list",
		RunE: func(c *cobra.Command, _ []string) error {
			return d.users(c, nil, func(ctx context.Context, who *accounts.Accounts, by access.Caller, _ []string) error {
				list, err := who.Users(ctx, by.Tenant)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
				if !asJSON {
					fmt.Fprintln(w, "NAME\tROLE\tSECOND FACTOR\tLAST LOG-IN\tREMARK")
				}
				for _, u := range list {
					if asJSON {
						if err := json.NewEncoder(c.OutOrStdout()).Encode(u); err != nil {
							return err
						}
						continue
					}
					fmt.Fprintln(w, userLine(&u))
				}
				return w.Flush()
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON, one user a line")
	return c
}

func userLine(u *rest.User) string {
	factor, last, remark := "no", "never", "-"
	if u.SecondFactor {
		factor = "yes"
	}
	if !u.LastLogin.IsZero() {
		last = u.LastLogin.Format(time.DateTime)
	}
	switch {
	case u.Disabled:
		remark = "disabled"
	case u.MustChange:
		remark = "has a one-time password"
	case u.MustEnrol:
		remark = "has to set up a second factor"
	}
	return strings.Join([]string{u.Name, string(u.Role), factor, last, remark}, "\t")
}

func (d *desk) apiTokenCommand() *cobra.Command {
	var scope, list string
	var spec rest.TokenSpec
	var life time.Duration
	c := &cobra.Command{
		Use: "api-token", Short: "make a token for the API, and for fulmar board", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		Example: `  fulmar-fleet api-token --scope admin --for 720h >~/.fulmar-token
  fulmar-fleet api-token --name line-4 --rights boards:read,commands:send \
    --boards "site = hall-4" --for 2160h`,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if list != "" && c.Flags().Changed("scope") {
				return fmt.Errorf("%w: --scope and --rights exclude each other", cli.ErrUsage)
			}
			what := "scope " + scope
			if list == "" {
				spec.Rights, err = registry.Scope(scope).Rights()
			} else {
				var words []rest.Right
				for w := range strings.SplitSeq(list, ",") {
					words = append(words, rest.Right(strings.TrimSpace(w)))
				}
				what = "rights " + list
				spec.Rights, err = rest.RightsOf(words...)
			}
			if err != nil {
				return err
			}
			return d.tool(func(reg *registry.Registry) error {
				t, _, err := reg.Accounts().MakeTokenFor(c.Context(), accounts.OnConsole(person()), spec, life)
				if err != nil {
					return err
				}
				fmt.Fprintln(c.OutOrStdout(), t)
				fmt.Fprintf(c.ErrOrStderr(), "API token of %s, good for %v, shown this once\n", what, life)
				return nil
			})
		},
	}
	c.Flags().StringVar(&scope, "scope", string(registry.ScopeRead), "what it may do, read or admin")
	c.Flags().StringVar(&list, "rights", "", "what it may do, word by word, in place of --scope")
	c.Flags().StringVar(&spec.Name, "name", "", "what the audit log calls it; if not given, a part of its hash")
	c.Flags().StringVar(&spec.Boards, "boards", "", "only for these boards")
	c.Flags().DurationVar(&life, "for", time.Hour, "how long it is good for")
	cli.Values(c, "scope", string(registry.ScopeRead), string(registry.ScopeAdmin))
	cli.Takes(c, "rights", "RIGHT,RIGHT")
	cli.Takes(c, "name", "NAME")
	cli.Takes(c, "boards", "QUERY")
	cli.Takes(c, "for", "TIME")
	return c
}
