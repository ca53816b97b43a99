// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"cmp"
	"context"
	"html/template"
	"slices"
	"strings"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/live"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

const (
	maxUserName  = 64 // bytes of a user's or a token's name
	maxTokenDays = 366
	maxQuery     = 1 << 10 // bytes of a query over boards
)

// nobody is the choice of a list for no role.
const nobody = "nobody"

func roleWords() (out []string) {
	for _, r := range rest.Roles() {
		out = append(out, string(r))
	}
	return out
}

// userRow is a person in the list.
type userRow struct {
	rest.User
	Roles       []form.Option
	Last, Since template.HTML
	Me          bool
	Second      string
}

// usersView is the users of the tenant.
type usersView struct {
	Rows []userRow
	Form *form.Form // of a new one
	From rest.Role  // from which role on a second factor is wanted; "": of nobody
}

func (p *pages) users(ctx context.Context, s *live.Sheet, by access.Caller, f *form.Form) (*usersView, error) {
	list, err := p.cfg.Accounts.Users(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	v := &usersView{Form: f}
	if v.From, err = p.cfg.Accounts.TOTPFrom(ctx, by.Tenant); err != nil {
		return nil, err
	}
	if f.Raw("from") == "" {
		f.Set("from", cmp.Or(string(v.From), nobody))
	}
	slices.SortFunc(list, func(a, b rest.User) int { return strings.Compare(a.Name, b.Name) })
	for _, u := range list {
		r := userRow{User: u, Me: u.Name == by.Author, Last: s.Ago("u|"+u.Name, u.LastLogin), Second: "none"}
		switch {
		case u.SecondFactor:
			r.Second = "on"
		case u.MustEnrol:
			r.Second = "asked for at the next log-in"
		}
		for _, role := range rest.Roles() {
			r.Roles = append(r.Roles, form.Option{Value: string(role), Text: string(role), Chosen: role == u.Role})
		}
		v.Rows = append(v.Rows, r)
	}
	return v, nil
}

// changeUsers does what the form of users asks for.
func (p *pages) changeUsers(ctx context.Context, by access.Caller, f *form.Form) (*secret, error) {
	if f.Raw("do") == "require" {
		from := rest.Role(f.OneOf("from", append([]string{nobody}, roleWords()...)...))
		if from == nobody {
			from = ""
		}
		if !f.OK() {
			return nil, nil
		}
		return nil, p.cfg.Accounts.RequireTOTP(ctx, by, from)
	}
	name := f.Need("user", maxUserName)
	if !f.OK() {
		return nil, nil
	}
	a := p.cfg.Accounts
	switch f.Raw("do") {
	case "add", "role":
		role := rest.Role(f.Raw("role"))
		if !slices.Contains(rest.Roles(), role) {
			f.Wrong("role", "Choose one of the list.")
			return nil, nil
		}
		if f.Raw("do") == "role" {
			return nil, a.SetRole(ctx, by, name, role)
		}
		one, err := a.AddUser(ctx, by, name, role)
		return &secret{Title: "The one-time password of " + name, Text: one, Note: "Give it to them by a way that others cannot read. They choose a password of their own at the first log-in."}, err
	case "reset":
		one, err := a.Reset(ctx, by, name)
		return &secret{Title: "The new one-time password of " + name, Text: one, Note: "The old password and all sessions of " + name + " have ended."}, err
	case "unfactor":
		return nil, a.DropTOTP(ctx, by, name)
	case "out", "in":
		return nil, a.Disable(ctx, by, name, f.Raw("do") == "out")
	case "remove":
		if f.Raw("confirm") != name {
			f.Refuse("Nothing was done: the name does not match.", "Type the name of the user exactly as it stands there.")
			return nil, nil
		}
		return nil, a.Remove(ctx, by, name)
	}
	return nil, errNothing
}

// tokenRow is a token in the list.
type tokenRow struct {
	rest.Token
	Ends         string
	Over, Mine   bool
	Last         template.HTML
	Limit, Gone  string
	MadeOn, Says string
}

// tokensView is the API tokens that a person may see: their own, or all.
type tokensView struct {
	Rows   []tokenRow
	All    bool
	Form   *form.Form
	Rights []rightBox
}

// rightBox is one right to tick.
type rightBox struct {
	form.Option
	Means string
}

func rightMeans(r rest.Right) string {
	return map[rest.Right]string{
		rest.BoardsRead: "see boards, detections, rollouts, alerts", rest.BoardsWrite: "change sites, labels, descriptions", rest.CommandsSend: "send commands and settings",
		rest.AlertsWrite: "change alert rules and webhooks", rest.AuditRead: "read the audit log", rest.RolloutsWrite: "plan, start, pause, abort rollouts",
		rest.RolloutsApprove: "approve what somebody else planned", rest.ReleasesWrite: "bring and remove releases", rest.BoardsAdmit: "let boards in and shut them out", rest.UsersWrite: "change users, roles, tokens of others",
	}[r]
}

// rightsOf lists the rights of a set, in its order.
func rightsOf(s rest.Rights) (out []rest.Right) {
	if s == 0 {
		return nil
	}
	for _, w := range strings.Split(s.String(), ", ") {
		out = append(out, rest.Right(w))
	}
	return out
}

func (p *pages) tokens(ctx context.Context, s *live.Sheet, by access.Caller, f *form.Form) (*tokensView, error) {
	list, err := p.cfg.Accounts.Tokens(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	v := &tokensView{Form: f, All: by.May(rest.UsersWrite) == nil}
	slices.SortFunc(list, func(a, b rest.Token) int { return b.Made.Compare(a.Made) })
	for _, t := range list {
		if !v.All && t.By != by.Author {
			continue
		}
		r := tokenRow{Token: t, Mine: t.By == by.Author, Over: !t.Expires.After(s.At), Last: s.Ago("t|"+t.ID, t.Used), Limit: t.Boards, Says: t.Rights.String(), Gone: t.Lost.String()}
		r.Ends = t.Expires.In(s.At.Location()).Format("2 Jan 2006")
		r.MadeOn = t.Made.In(s.At.Location()).Format("2 Jan 2006")
		v.Rows = append(v.Rows, r)
	}
	ticked := f.All("rights")
	for _, r := range rightsOf(by.Rights) {
		v.Rights = append(v.Rights, rightBox{form.Option{Value: string(r), Text: string(r), Chosen: slices.Contains(ticked, string(r))}, rightMeans(r)})
	}
	return v, nil
}

// changeTokens makes a token, or ends one.
func (p *pages) changeTokens(ctx context.Context, by access.Caller, f *form.Form) (*secret, error) {
	switch f.Raw("do") {
	case "revoke":
		id := f.Need("id", maxUserName)
		if !f.OK() {
			return nil, nil
		}
		if err := p.owned(ctx, by, id); err != nil {
			return nil, err
		}
		return nil, p.cfg.Accounts.RevokeToken(ctx, by, id)
	case "make":
	default:
		return nil, errNothing
	}
	spec := rest.TokenSpec{Name: f.Need("name", maxUserName), Boards: f.Line("boards", maxQuery), Days: f.Whole("days", 1, maxTokenDays, 90)}
	var list []rest.Right
	for _, w := range f.All("rights") {
		list = append(list, rest.Right(w))
	}
	var err error
	switch spec.Rights, err = rest.RightsOf(list...); {
	case err != nil:
		f.Wrong("rights", "Choose rights of the list.")
	case spec.Rights == 0:
		f.Wrong("rights", "Choose at least one right.")
	case !spec.Rights.Within(by.Rights):
		f.Wrong("rights", "You cannot give what you do not have.")
	}
	if !f.OK() {
		return nil, nil
	}
	text, t, err := p.cfg.Accounts.MakeToken(ctx, by, spec)
	return &secret{Title: "The token " + t.Name, Text: text, Note: "It is good until " + t.Expires.Format("2 Jan 2006") + " for " + words.Plural(len(list), "right", "rights") + ". Send it as Authorization: Bearer TOKEN."}, err
}

// owned refuses to end a token of somebody else to whom may not keep users.
func (p *pages) owned(ctx context.Context, by access.Caller, id string) error {
	if by.May(rest.UsersWrite) == nil {
		return nil
	}
	list, err := p.cfg.Accounts.Tokens(ctx, by.Tenant)
	if err != nil {
		return err
	}
	for _, t := range list {
		if t.ID == id && t.By == by.Author {
			return nil
		}
	}
	return access.ErrNotAllowed
}

// accountView is a person's own account.
type accountView struct {
	User     string
	Role     rest.Role
	Means    []string
	Second   bool
	Known    bool   // whether they have a second factor is known
	SetUp    string // where it is set up
	Logins   []loginRow
	LoggedIn bool // where the person is logged in is known
}

// loginRow is one place where the person is logged in.
type loginRow struct {
	rest.Login
	Since string
	Last  template.HTML
}

func (p *pages) account(ctx context.Context, s *live.Sheet, who web.Session) (*accountView, error) {
	v := &accountView{User: who.User, Role: who.Role, SetUp: p.cfg.SecondFactor}
	for _, r := range rightsOf(who.Role.Rights()) {
		v.Means = append(v.Means, rightMeans(r))
	}
	if p.cfg.Accounts != nil {
		list, err := p.cfg.Accounts.Users(ctx, who.Tenant)
		if err != nil {
			return nil, err
		}
		for _, u := range list {
			if u.Name == who.User {
				v.Known, v.Second = true, u.SecondFactor
			}
		}
	}
	if p.cfg.Logins == nil {
		return v, nil
	}
	here := ""
	if p.cfg.Here != nil {
		here = p.cfg.Here(who)
	}
	list, err := p.cfg.Logins.Logins(ctx, who.User, here)
	if err != nil {
		return nil, err
	}
	v.LoggedIn = true
	for _, l := range list {
		l.With = browser(l.With)
		v.Logins = append(v.Logins, loginRow{l, words.Stamp(l.Made.In(s.At.Location()), s.At), s.Ago("l|"+l.ID, l.Used)})
	}
	return v, nil
}

// changeAccount ends one of a person's own sessions.
func (p *pages) changeAccount(ctx context.Context, by access.Caller, f *form.Form) error {
	if f.Raw("do") != "end" || p.cfg.Logins == nil {
		return errNothing
	}
	id := f.Need("id", 128)
	if !f.OK() {
		return nil
	}
	return p.cfg.Logins.EndLogin(ctx, by.Author, id)
}
