// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"fulmar/internal/peercred"
	"fulmar/schema/onboard"
)

// Access says who may do what: names or numbers of users, and of groups with % before
// them. Viewers empty: everybody who can open the socket may look.
type Access struct {
	Operators []string
	Viewers   []string
}

// overflow is the number that the kernel gives for a user or group which has none in this
// user namespace (kernel.overflowuid): who has it could be anybody, so it matches nothing.
const overflow = 65534

// people finds users and groups.
type people interface {
	// name is a user's name, or uid-NUMBER.
	name(uid int) string
	// group is the number of a group, if there is one of that name.
	group(name string) (int, bool)
}

// role gives what somebody may do.
func (a *Access) role(p people, who peercred.Peer) onboard.Role {
	is := func(entry string) bool { return matches(p, entry, who) }
	switch {
	case slices.ContainsFunc(a.Operators, is):
		return onboard.RoleOperator
	case len(a.Viewers) == 0 || slices.ContainsFunc(a.Viewers, is):
		return onboard.RoleViewer
	}
	return onboard.RoleNone
}

func matches(p people, entry string, who peercred.Peer) bool {
	group, ofGroup := strings.CutPrefix(entry, "%")
	if !ofGroup {
		if n, err := strconv.Atoi(entry); err == nil {
			return n == who.UID && n != overflow
		}
		return who.UID != overflow && p.name(who.UID) == entry
	}
	n, err := strconv.Atoi(group)
	if err != nil {
		var known bool
		if n, known = p.group(group); !known {
			return false
		}
	}
	return n != overflow && (who.GID == n || slices.Contains(who.Groups, n))
}

// system is the users and groups of this machine: /etc/passwd and /etc/group. Those of a
// directory service are named in the config by their numbers.
type system struct{}

func (system) name(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil || !speakable(u.Username) {
		return fmt.Sprintf("uid-%d", uid)
	}
	return u.Username
}

// speakable tells whether a name can be part of an actor: what is no UTF-8 would make a line
// of the journal that no start can read, and blanks and slashes another actor.
func speakable(name string) bool {
	return name != "" && len(name) <= maxUser && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return r == '/' || !unicode.IsGraphic(r) || unicode.IsSpace(r) })
}

// maxUser is the longest name that fits an actor with what stands before it.
const maxUser = 48

func (system) group(name string) (int, bool) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(g.Gid)
	return n, err == nil
}
