// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Role is what a person is in a tenant. Each may do all that the one before it may.
type Role string

// The roles, least first.
const (
	Viewer   Role = "viewer"   // looks
	Operator Role = "operator" // names boards, sends commands, keeps alerts
	Releaser Role = "releaser" // brings releases, plans, starts, approves and halts rollouts
	Admin    Role = "admin"    // lets boards and people in
)

// Roles lists the roles, least first.
func Roles() []Role { return []Role{Viewer, Operator, Releaser, Admin} }

// Right is one thing that a person or a token may do: the scopes of API tokens.
type Right string

// The rights.
const (
	BoardsRead      Right = "boards:read"      // boards, what they see, rollouts, alerts
	BoardsWrite     Right = "boards:write"     // names, sites, labels and other metadata
	CommandsSend    Right = "commands:send"    // commands and settings of boards
	CommandsApprove Right = "commands:approve" // agree to a command that somebody else gave
	AlertsWrite     Right = "alerts:write"     // alert rules and webhooks
	AuditRead       Right = "audit:read"       // the audit log
	RolloutsWrite   Right = "rollouts:write"   // plan, start, pause, resume, abort, retry
	RolloutsApprove Right = "rollouts:approve" // approve what somebody else planned
	ReleasesWrite   Right = "releases:write"   // bring and remove releases
	BoardsAdmit     Right = "boards:admit"     // join tokens, approve, refuse, revoke, wipe
	UsersWrite      Right = "users:write"      // users, roles, other people's tokens
)

// granted says from which role on a right is held.
func granted() []struct {
	right Right
	from  Role
} {
	return []struct {
		right Right
		from  Role
	}{
		{BoardsRead, Viewer},
		{BoardsWrite, Operator},
		{CommandsSend, Operator},
		{CommandsApprove, Operator},
		{AlertsWrite, Operator},
		{AuditRead, Operator},
		{RolloutsWrite, Releaser},
		{RolloutsApprove, Releaser},
		{ReleasesWrite, Releaser},
		{BoardsAdmit, Admin},
		{UsersWrite, Admin},
	}
}

// Rights is a set of rights. In JSON it is a list of words.
type Rights uint32

// RightsOf gives the set of these rights; an unknown word is an error.
func RightsOf(list ...Right) (Rights, error) {
	var s Rights
	for _, r := range list {
		i := slices.IndexFunc(granted(), func(g struct {
			right Right
			from  Role
		},
		) bool {
			return g.right == r
		})
		if i < 0 {
			return 0, fmt.Errorf("no right is called %.32q; there are %s", string(r), strings.Join(words(^Rights(0)), ", "))
		}
		s |= 1 << i
	}
	return s, nil
}

// Rights gives what a role may do; nothing for an unknown one.
func (r Role) Rights() Rights {
	var s Rights
	have := slices.Index(Roles(), r)
	for i, g := range granted() {
		if have >= slices.Index(Roles(), g.from) {
			s |= 1 << i
		}
	}
	return s
}

// Has tells whether the right is in the set.
func (s Rights) Has(r Right) bool {
	one, err := RightsOf(r)
	return err == nil && s&one != 0
}

// Within tells whether all of s is in t: nobody gives away more than they have.
func (s Rights) Within(t Rights) bool { return s&^t == 0 }

func words(s Rights) (out []string) {
	for i, g := range granted() {
		if s&(1<<i) != 0 {
			out = append(out, string(g.right))
		}
	}
	return out
}

// String lists the rights with commas between them.
func (s Rights) String() string { return strings.Join(words(s), ", ") }

// MarshalJSON implements [json.Marshaler].
func (s Rights) MarshalJSON() ([]byte, error) {
	return json.Marshal(append([]string{}, words(s)...))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (s *Rights) UnmarshalJSON(b []byte) error {
	var list []Right
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	got, err := RightsOf(list...)
	*s = got
	return err
}
