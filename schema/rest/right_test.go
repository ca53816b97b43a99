// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/json"
	"testing"
)

// TestRoles: each role may do all that the one before it may and something more, and
// the last one all.
func TestRoles(t *testing.T) {
	t.Parallel()
	var before Rights
	for _, r := range Roles() {
		s := r.Rights()
		if !before.Within(s) || s == before {
			t.Errorf("%s may do %v, the role before it %v", r, s, before)
		}
		before = s
	}
	if all, err := RightsOf(BoardsRead, BoardsWrite, CommandsSend, CommandsApprove, AlertsWrite, AuditRead, RolloutsWrite, RolloutsApprove, ReleasesWrite, BoardsAdmit, UsersWrite); err != nil || before != all {
		t.Errorf("admin may do %v, %v", before, err)
	}
	if s := Role("root").Rights(); s != 0 {
		t.Errorf("an unknown role may do %v", s)
	}
	if Viewer.Rights().Has(BoardsWrite) || !Viewer.Rights().Has(BoardsRead) || Admin.Rights().Has("boards:eat") {
		t.Error("Has is wrong")
	}
}

func TestRightsJSON(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(Operator.Rights())
	var back Rights
	if err != nil || json.Unmarshal(b, &back) != nil || back != Operator.Rights() {
		t.Errorf("%s, %v: %v", b, err, back)
	}
	if b, _ := json.Marshal(Rights(0)); string(b) != "[]" {
		t.Errorf("no rights are %s", b)
	}
	if json.Unmarshal([]byte(`["boards:read","boards:eat"]`), &back) == nil {
		t.Error("an unknown right was taken")
	}
}
