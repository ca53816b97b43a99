// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	fleetcommands "fulmar/cmd/fulmar-fleet/commands"
	"fulmar/cmd/fulmar/commands"
	"fulmar/fleet/web/auditlog"
	"fulmar/schema/rest"
)

// TestCommandsOnPages: each command that a page shows is one, with flags that it has.
func TestCommandsOnPages(t *testing.T) {
	t.Parallel()
	shown := map[string]string{} // command to where it stands
	inCode := regexp.MustCompile(`<code[^>]*>((?:sudo )?fulmar(?:-fleet)? [^<{]*)</code>`)
	inGo := regexp.MustCompile("[\"`]((?:sudo )?fulmar(?:-fleet)? [a-z][^\"`]*)[\"`]")
	for _, root := range []string{"../../fleet/web", "../../fleet/pages.go"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, re := range []*regexp.Regexp{inCode, inGo} {
				for _, m := range re.FindAllStringSubmatch(string(b), -1) {
					shown[strings.TrimSpace(m[1])] = path
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	shown[auditlog.Command(rest.AuditFilter{Who: "o'neil", What: "log-in", Board: "dock-1", From: now, To: now})] = "the log, filtered"
	for _, must := range []string{"fulmar board list", "fulmar audit list", "sudo fulmar enrol"} {
		if shown[must] == "" {
			t.Errorf("%s stands on no page: is it still found by the way it is written?", must)
		}
	}
	// What the pages put together; their own tests hold them to it.
	shown["fulmar board list -q 'site = hall-4'"] = "the fleet, asked"
	for line, where := range shown {
		if what := wrong(strings.TrimPrefix(line, "sudo ")); what != "" {
			t.Errorf("%s: %s: %s", where, line, what)
		}
	}
	for _, line := range []string{"fulmar boards", "fulmar board list --nothing", "fulmar board list --query", "fulmar-fleet tokens", "fulmar board show"} {
		if wrong(line) == "" {
			t.Errorf("%s passes", line)
		}
	}
}

// wrong says what keeps a line from being a command; a query flag at its end has a value.
func wrong(line string) string {
	words := regexp.MustCompile(`'(?:[^']|'\\'')*'|\S+`).FindAllString(line, -1)
	var root *cobra.Command
	switch words[0] {
	case "fulmar":
		root = commands.Root("1.2.3")
	case "fulmar-fleet":
		root = fleetcommands.Root("1.2.3")
	}
	if words[len(words)-1] == "-q" { // named, not asked
		words = append(words, "state=failing")
	}
	c, rest, err := root.Find(words[1:])
	switch {
	case err != nil:
		return err.Error()
	case c.HasSubCommands():
		return c.CommandPath() + " is no command"
	}
	if err := c.ParseFlags(rest); err != nil {
		return err.Error()
	}
	if err := c.ValidateArgs(c.Flags().Args()); err != nil {
		return err.Error()
	}
	return ""
}
