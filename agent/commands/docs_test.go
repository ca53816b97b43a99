// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"fulmar/command"
	"fulmar/device/schedule"
	"fulmar/schema"
)

// row is a command as docs/commands.md shows it.
func row(k *command.Kind) string {
	var args []string
	for _, f := range k.Args {
		a := string(f.Type)
		if len(f.Choices) > 0 {
			a = strings.Join(f.Choices, ", ")
		}
		if f.Unit != "" {
			a += " " + f.Unit
		}
		if f.Max != 0 {
			a += fmt.Sprintf(" %v to %v", f.Min, f.Max)
			if f.Type == command.Duration {
				a += " s"
			}
		}
		if !f.Required {
			a += ", optional"
		}
		args = append(args, fmt.Sprintf("`%s` (%s)", f.Name, a))
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", k.Name, strings.Join(args, "; "), k.Lane, k.Crash, k.Effect)
}

// TestDocs: the table of docs/commands.md is that of the code. FULMAR_UPDATE=1 writes it.
func TestDocs(t *testing.T) {
	t.Parallel()
	const path, head = "../../docs/commands.md", "|---|---|---|---|---|\n"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{
		Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Outputs: newBank(), Settings: &settings{}, Worker: &inferer{}, Latest: schedule.NewLatest(schema.Clock{}),
		Stop: func(string) {}, Diagnose: func(context.Context, func(string, []byte)) {}, Keep: func(context.Context, string, string, string, []byte) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range s.kinds {
		want.WriteString(row(&s.kinds[i]))
	}
	before, rest, ok := strings.Cut(string(b), head)
	table, after, ok2 := strings.Cut(rest, "\n\n")
	if !ok || !ok2 {
		t.Fatal("docs/commands.md has no table of commands")
	}
	if os.Getenv("FULMAR_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(before+head+want.String()+"\n"+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if table+"\n" != want.String() {
		t.Errorf("docs/commands.md differs from the code; FULMAR_UPDATE=1 go test ./agent/commands -run TestDocs writes it:\n%s", want.String())
	}
	if len(s.kinds) != 13 {
		t.Errorf("%d commands", len(s.kinds))
	}
	bare, err := Open(Config{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil || len(bare.kinds) != 1 || bare.Names()[0] != "cancel" {
		t.Errorf("a board with nothing has %v, %v", bare.Names(), err)
	}
}
