// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package people has the commands of fulmar about who may do what in a fleet: users,
// API tokens, and who the caller is.
package people

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

const (
	users  = "/api/v1/users"
	tokens = "/api/v1/tokens"
)

// UserCommand is fulmar user.
func UserCommand() *cobra.Command {
	c := cli.Group(&cobra.Command{
		Use: "user", Short: "the people of a fleet and their roles",
		Long: "A viewer looks; an operator names boards, sends commands and keeps alerts; a releaser\nplans and starts rollouts; an admin lets boards and people in.\n\n" + remote.About,
	})
	f := new(remote.Flags)
	f.Register(c)
	role := new(string)
	add := remote.Command(f, false, &cobra.Command{
		Use: "add NAME", Short: "make a user; the one-time password is printed once", Args: cli.Words("a NAME"),
		Example: "  fulmar user add m.kern --role operator",
	}, func(ctx context.Context, k *remote.Call) error { return addUser(ctx, k, *role) })
	roleFlag(add, role, string(rest.Viewer))
	change := remote.Command(f, false, &cobra.Command{
		Use: "role NAME ROLE", Short: "make a user a viewer, operator, releaser or admin", Args: cli.Words("a NAME", "a ROLE"),
		Example: "  fulmar user role m.kern releaser",
	}, setRole)
	c.AddCommand(
		remote.Command(f, true, &cobra.Command{Use: "list", Short: "the users", Args: cli.Words(), Example: "  fulmar user list"}, listUsers),
		add, change,
		remote.Command(f, false, &cobra.Command{Use: "reset NAME", Short: "give a user a new one-time password, and end their log-ins", Args: cli.Words("a NAME"), Example: "  fulmar user reset m.kern"}, resetUser),
		remote.Command(f, false, &cobra.Command{
			Use: "disable NAME", Short: "shut a user out, with their log-ins and tokens; what they did stays", Args: cli.Words("a NAME"),
			Example: "  fulmar user disable m.kern",
		}, func(ctx context.Context, k *remote.Call) error {
			return disable(ctx, k, true, "%[1]s is shut out: every log-in has ended, and no token of theirs lets anybody in; fulmar user enable %[1]s takes that back\n")
		}),
		remote.Command(f, false, &cobra.Command{
			Use: "enable NAME", Short: "let a user in again", Args: cli.Words("a NAME"), Example: "  fulmar user enable m.kern",
		}, func(ctx context.Context, k *remote.Call) error {
			return disable(ctx, k, false, "%[1]s may log in again, and their tokens are good again until they end\n")
		}),
		remote.Command(f, false, &cobra.Command{Use: "second-factor NAME", Short: "take the second factor off from somebody who lost it", Args: cli.Words("a NAME"), Example: "  fulmar user second-factor m.kern"}, func(ctx context.Context, k *remote.Call) error {
			if err := k.Remove(ctx, users+"/"+url.PathEscape(k.Words[0])+"/second-factor"); err != nil {
				return err
			}
			fmt.Fprintf(k.Stderr, "%s logs in with the password alone until they set up another second factor\n", k.Words[0])
			return nil
		}),
		remote.Command(f, false, &cobra.Command{Use: "remove NAME", Short: "remove a user; their tokens end with them", Args: cli.Words("a NAME"), Example: "  fulmar user remove m.kern"}, func(ctx context.Context, k *remote.Call) error {
			if err := k.Remove(ctx, users+"/"+url.PathEscape(k.Words[0])); err != nil {
				return err
			}
			fmt.Fprintf(k.Stderr, "%s is removed: every log-in has ended, and no token of theirs lets anybody in\n", k.Words[0])
			return nil
		}),
	)
	return c
}

func disable(ctx context.Context, k *remote.Call, out bool, say string) error {
	_, err := k.Do(ctx, remote.Request{
		Method: http.MethodPut, Path: users + "/" + url.PathEscape(k.Words[0]) + "/disabled", Body: map[string]bool{"disabled": out},
	}, nil)
	if err != nil {
		return remote.Unsure(err)
	}
	fmt.Fprintf(k.Stderr, say, k.Words[0])
	return nil
}

func roleFlag(c *cobra.Command, into *string, standard string) {
	var names []string
	for _, r := range rest.Roles() {
		names = append(names, string(r))
	}
	c.Flags().StringVar(into, "role", standard, strings.Join(names, ", "))
	cli.Values(c, "role", names...)
	cli.Takes(c, "role", "ROLE")
}

func checkRole(s string) (rest.Role, error) {
	if r := rest.Role(s); slices.Contains(rest.Roles(), r) {
		return r, nil
	}
	return "", fmt.Errorf("%w: %q is no role: viewer, operator, releaser or admin", cli.ErrUsage, s)
}

func listUsers(ctx context.Context, k *remote.Call) error {
	all, err := remote.Whole[rest.User](ctx, k.Client, users, nil)
	if err != nil {
		return err
	}
	type col = show.Column[rest.User]
	now := time.Now()
	return show.Rows(k.Stdout, &k.Format, all,
		col{Name: "name", Of: func(u rest.User) string { return u.Name }},
		col{Name: "role", Of: func(u rest.User) string { return string(u.Role) }},
		col{Name: "second factor", Of: func(u rest.User) string { return yes(u.SecondFactor) }},
		col{Name: "last log-in", Of: func(u rest.User) string { return show.Age(u.LastLogin, now) }},
		col{Name: "log-ins", Wide: true, Of: func(u rest.User) string { return strconv.Itoa(u.Sessions) }},
		col{Name: "tokens", Wide: true, Of: func(u rest.User) string { return strconv.Itoa(u.Tokens) }},
		col{Name: "remark", Of: func(u rest.User) string {
			switch {
			case u.Disabled:
				return "may not log in"
			case u.MustChange:
				return "has a one-time password"
			case u.MustEnrol:
				return "has to set up a second factor"
			}
			return ""
		}},
	)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func addUser(ctx context.Context, k *remote.Call, role string) error {
	r, err := checkRole(role)
	if err != nil {
		return err
	}
	var once rest.OneTime
	if err := k.Post(ctx, users, rest.UserSpec{Name: k.Words[0], Role: r}, &once); err != nil {
		return err
	}
	fmt.Fprintln(k.Stdout, once.Password)
	fmt.Fprintf(k.Stderr, "%s is a user; the one-time password above is shown this once and has to be changed at %s\n", once.Name, k.Page("/login"))
	return nil
}

func setRole(ctx context.Context, k *remote.Call) error {
	r, err := checkRole(k.Words[1])
	if err != nil {
		return err
	}
	_, err = k.Do(ctx, remote.Request{Method: http.MethodPut, Path: users + "/" + url.PathEscape(k.Words[0]) + "/role", Body: rest.UserSpec{Role: r}}, nil)
	if err != nil {
		return remote.Unsure(err)
	}
	fmt.Fprintf(k.Stderr, "%s is a %s from now on: %s\n", k.Words[0], r, r.Rights())
	return nil
}

func resetUser(ctx context.Context, k *remote.Call) error {
	var once rest.OneTime
	if err := k.Post(ctx, users+"/"+url.PathEscape(k.Words[0])+"/reset", nil, &once); err != nil {
		return err
	}
	fmt.Fprintln(k.Stdout, once.Password)
	fmt.Fprintf(k.Stderr, "%s is logged out everywhere; the one-time password above is shown this once\n", once.Name)
	return nil
}

// TokenCommand is fulmar token.
func TokenCommand() *cobra.Command {
	c := cli.Group(&cobra.Command{
		Use: "token", Short: "API tokens, which let programs into a fleet",
		Long: "A token may do no more than whoever makes it, and less as soon as they may less.\n\n" + remote.About,
	})
	f := new(remote.Flags)
	f.Register(c)
	spec, rights := new(rest.TokenSpec), new([]string)
	issue := remote.Command(f, false, &cobra.Command{
		Use: "make NAME", Short: "make a token; it is printed once", Args: cli.Words("a NAME"),
		Long:    "Rights: " + rest.Admin.Rights().String() + ".",
		Example: "  fulmar token make grafana --right boards:read --days 365\n  fulmar token make hall-4 --right boards:read --right commands:send -q site=hall-4",
	}, func(ctx context.Context, k *remote.Call) error { return makeToken(ctx, k, *spec, *rights) })
	issue.Flags().StringSliceVar(rights, "right", []string{string(rest.BoardsRead)}, "what it may do; once for each")
	issue.Flags().StringVarP(&spec.Boards, "query", "q", "", "only boards that it matches")
	issue.Flags().IntVar(&spec.Days, "days", 90, "how long it is good for")
	cli.Takes(issue, "right", "RIGHT")
	cli.Takes(issue, "query", "QUERY")
	cli.Takes(issue, "days", "N")
	cli.Values(issue, "right", strings.Split(rest.Admin.Rights().String(), ", ")...)
	c.AddCommand(
		remote.Command(f, true, &cobra.Command{Use: "list", Short: "the tokens, never their secrets", Args: cli.Words(), Example: "  fulmar token list -o wide"}, listTokens),
		issue,
		remote.Command(f, false, &cobra.Command{Use: "revoke ID", Short: "end a token, now", Args: cli.Words("an ID"), Example: "  fulmar token revoke 1f0c2d3e"}, func(ctx context.Context, k *remote.Call) error {
			if err := k.Remove(ctx, tokens+"/"+url.PathEscape(k.Words[0])); err != nil {
				return err
			}
			fmt.Fprintf(k.Stderr, "token %s lets nobody in any more\n", k.Words[0])
			return nil
		}),
	)
	return c
}

func makeToken(ctx context.Context, k *remote.Call, spec rest.TokenSpec, rights []string) error {
	var list []rest.Right
	for _, r := range rights {
		list = append(list, rest.Right(r))
	}
	var err error
	if spec.Rights, err = rest.RightsOf(list...); err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	spec.Name = k.Words[0]
	var made rest.MadeToken
	if err := k.Post(ctx, tokens, spec, &made); err != nil {
		return err
	}
	if made.Secret == "" {
		return fault.New(fault.Refused, "the fleet made token %s and did not tell it: revoke it and make another", made.ID)
	}
	fmt.Fprintln(k.Stdout, made.Secret)
	fmt.Fprintf(k.Stderr, "token %s, good until %s, shown this once; fulmar token revoke %s ends it\n", made.ID, show.At(made.Expires), made.ID)
	return nil
}

func listTokens(ctx context.Context, k *remote.Call) error {
	all, err := remote.Whole[rest.Token](ctx, k.Client, tokens, nil)
	if err != nil {
		return err
	}
	type col = show.Column[rest.Token]
	now := time.Now()
	return show.Rows(k.Stdout, &k.Format, all,
		col{Name: "id", Of: func(t rest.Token) string { return t.ID }},
		col{Name: "name", Of: func(t rest.Token) string { return t.Name }},
		col{Name: "by", Of: func(t rest.Token) string { return t.By }},
		col{Name: "used", Of: func(t rest.Token) string { return show.Age(t.Used, now) }},
		col{Name: "ends", Of: func(t rest.Token) string { return show.Age(t.Expires, now) }},
		col{Name: "boards", Of: func(t rest.Token) string { return t.Boards }},
		col{Name: "rights", Wide: true, Of: func(t rest.Token) string { return t.Rights.String() }},
		col{Name: "lost", Wide: true, Of: func(t rest.Token) string { return t.Lost.String() }},
	)
}

// WhoCommand is fulmar whoami.
func WhoCommand() *cobra.Command {
	f := new(remote.Flags)
	c := remote.Command(f, true, &cobra.Command{
		Use: "whoami", Short: "which fleet is asked, as whom, and what that one may do", Long: remote.About, Args: cli.Words(), Example: "  fulmar whoami",
	}, func(ctx context.Context, k *remote.Call) error {
		var me rest.Me
		if err := k.Get(ctx, "/api/v1/me", nil, &me); err != nil {
			return err
		}
		if k.Format.Quiet() {
			return show.JSON(k.Stdout, me)
		}
		fmt.Fprintf(k.Stdout, "%s of %s at %s\nmay   %s\n", show.Clean(me.Who), show.Clean(me.Tenant), k.Page("/"), me.Rights)
		if me.Boards != "" {
			fmt.Fprintf(k.Stdout, "only  %s\n", show.Clean(me.Boards))
		}
		return nil
	})
	f.Register(c)
	return c
}
