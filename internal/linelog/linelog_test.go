// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package linelog

import (
	"log/slog"
	"strings"
	"testing"
)

func TestBounded(t *testing.T) {
	t.Parallel()
	out := &strings.Builder{}
	l := New(slog.New(slog.NewTextHandler(out, nil)))
	l.Write([]byte("one\ntw"))
	l.Write([]byte("o\n\n" + strings.Repeat("x", 1<<20)))
	if cap(l.line) > 2*maxLine {
		t.Errorf("%d bytes kept of a line without end", cap(l.line))
	}
	for range 10 * linesPerSpan {
		l.Write([]byte("\nspam"))
	}
	l.Flush()
	s := out.String()
	if !strings.Contains(s, "line=one\n") || !strings.Contains(s, "line=two\n") {
		t.Errorf("lines are missing: %.200s", s)
	}
	if n := strings.Count(s, "\n"); n != linesPerSpan+1 {
		t.Errorf("%d lines, want %d and the notice", n, linesPerSpan)
	}
	if !strings.Contains(s, skippedNotice) {
		t.Error("the lines left out are not told")
	}
}
