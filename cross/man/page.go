// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"fulmar/internal/cli"
)

// page is a manual page in mdoc, the language of BSD manuals: groff and mandoc both
// read it, and it knows what a flag and an argument are.
type page struct{ bytes.Buffer }

// head begins a page.
func head(name, section string, e edition) *page {
	p := new(page)
	p.line(`.\" Copyright (c) The Fulmar Authors`)
	p.line(`.\" SPDX-License-Identifier: Apache-2.0`)
	p.line(".Dd %s", e.at.Format("January 2, 2006"))
	p.line(".Dt %s %s", strings.ToUpper(name), section)
	p.line(".Os fulmar %s", e.release)
	return p
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) raw(text string) { p.WriteString(text) }

// escape makes a text one that roff prints as it is.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

// whole keeps roff from hyphenating the name of a program, which could not be copied.
func whole(s string) string { return strings.ReplaceAll(s, `fulmar\-`, `\%fulmar\-`) }

// quote makes a text one argument of a macro.
func quote(s string) string { return `"` + strings.ReplaceAll(escape(s), `"`, `""`) + `"` }

// proseWidth keeps the lines of a source readable; roff fills them anew.
const proseWidth = 72

// prose writes sentences, each on a line of its own, as roff likes it.
func (p *page) prose(text string) {
	text = strings.Join(strings.Fields(text), " ")
	for text != "" {
		end := strings.IndexAny(text, ".?!")
		for end >= 0 && end+1 < len(text) && (text[end+1] != ' ' || end+2 < len(text) && !unicode.IsUpper(rune(text[end+2]))) {
			next := strings.IndexAny(text[end+1:], ".?!")
			if next < 0 {
				end = -1
				break
			}
			end += 1 + next
		}
		if end < 0 {
			end = len(text) - 1
		}
		for _, l := range cli.Wrap(text[:end+1], proseWidth) {
			p.line("%s", whole(escape(l)))
		}
		text = strings.TrimSpace(text[end+1:])
	}
}

// paragraphs writes a text. One with columns or an indent is printed as it stands.
func (p *page) paragraphs(text string) {
	for para := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n\n") {
		if strings.HasPrefix(para, "  ") || strings.Contains(para, "   ") || strings.Contains(para, "\n  ") {
			p.literal(para)
		} else {
			p.line(".Pp")
			p.prose(para)
		}
	}
}

// examples follow a text.
func (p *page) examples(text string) {
	if text != "" {
		p.line(".Pp\nExamples:")
		p.literal(text)
	}
}

func (p *page) literal(text string) {
	p.line(".Bd -literal -offset indent")
	for _, l := range strings.Split(strings.Trim(text, "\n"), "\n") {
		p.line("%s", escape(strings.TrimPrefix(l, "  ")))
	}
	p.line(".Ed")
}

// sentence makes one of a few words.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// program writes all that the commands of a root tell of themselves.
func (p *page) program(root *cobra.Command) {
	p.line(".Sh NAME\n.Nm %s\n.Nd %s", root.Name(), escape(root.Short))
	p.line(".Sh SYNOPSIS\n.Nm\n.Ar COMMAND\n.Op Ar OPTIONS")
	p.line(".Nm\n.Ar COMMAND\n.Fl \\-help")
	p.line(".Sh DESCRIPTION")
	p.prose(root.Long)
	p.shared(root)
	p.line(".Sh COMMANDS")
	for _, c := range root.Commands() {
		if !c.IsAvailableCommand() || c.Name() == "help" {
			continue
		}
		if !c.HasAvailableSubCommands() {
			p.command(c)
			continue
		}
		p.line(".Ss %s", quote(c.CommandPath()))
		p.prose(sentence(c.Short))
		if c.Long != "" {
			p.paragraphs(c.Long)
		}
		p.shared(c)
		for _, k := range cli.Commands(c) {
			p.command(k)
		}
	}
}

// shared writes the options that the commands below c have in common.
func (p *page) shared(c *cobra.Command) {
	if list := cli.Options(c.PersistentFlags()); len(list) > 0 {
		p.line(".Pp\nOptions of all of its commands:")
		p.options(list)
	}
}

// command writes one that does something. What its group says is not said again.
func (p *page) command(c *cobra.Command) {
	line := cli.Line(c, c.Root())
	list := cli.Options(c.LocalNonPersistentFlags())
	if len(list) > 0 && !strings.Contains(line, "[OPTIONS]") {
		line += " [OPTIONS]"
	}
	p.line(".Ss %s", quote(c.Root().Name()+" "+line))
	p.prose(sentence(c.Short))
	long := c.Long
	if up := c.Parent(); up != c.Root() && up.Long != "" {
		long = strings.Replace(long, up.Long, "", 1)
	}
	if long = strings.TrimSpace(long); long != "" {
		p.paragraphs(long)
	}
	p.options(list)
	p.examples(c.Example)
}

func (p *page) options(list []cli.Option) {
	if len(list) == 0 {
		return
	}
	p.line(".Bl -tag -width Ds")
	for _, o := range list {
		item := ".It Fl " + escape(strings.TrimPrefix(o.Flag, "-"))
		if o.Value != "" {
			item += " Ar " + quote(o.Value)
		}
		p.line("%s", item)
		p.prose(sentence(o.Text))
	}
	p.line(".El")
}

// keys writes a config file with its comments: what stands above a key is the text over
// its lines.
func (p *page) keys(yaml string) {
	for _, block := range strings.Split(strings.TrimSpace(yaml), "\n\n") {
		var comments, lines []string
		for _, l := range strings.Split(block, "\n") {
			if c, is := strings.CutPrefix(l, "#"); is && len(lines) == 0 {
				comments = append(comments, strings.TrimSpace(c))
			} else {
				lines = append(lines, l)
			}
		}
		if len(lines) == 0 {
			continue // what the file says of itself
		}
		name, _, _ := strings.Cut(lines[0], ":")
		p.line(".Ss %s", quote(name))
		if len(comments) > 0 {
			p.prose(strings.Join(comments, " "))
		}
		p.line(".Bd -literal")
		for _, l := range narrow(lines) {
			p.line("%s", escape(l))
		}
		p.line(".Ed")
	}
}

// keysWidth is what a terminal of 80 columns has for a literal line of a page.
const keysWidth = 74

// narrow puts comments that do not fit beside their key above it.
func narrow(lines []string) (out []string) {
	for i := 0; i < len(lines); i++ {
		code, comment, has := strings.Cut(lines[i], "#")
		col, wide, first := len(code), len(lines[i]) > keysWidth, i
		words := []string{strings.TrimSpace(comment)}
		for has && i+1 < len(lines) && strings.TrimSpace(lines[i+1]) != "" && strings.Index(lines[i+1], "#") == col && strings.TrimSpace(lines[i+1][:col]) == "" {
			i++
			wide = wide || len(lines[i]) > keysWidth
			words = append(words, strings.TrimSpace(lines[i][col+1:]))
		}
		if !has || !wide {
			out = append(out, lines[first:i+1]...)
			continue
		}
		code = strings.TrimRight(code, " ")
		indent := code[:len(code)-len(strings.TrimLeft(code, " "))]
		if code == "" { // a comment alone
			indent = lines[first][:col]
		}
		for _, l := range cli.Wrap(strings.Join(words, " "), keysWidth-len(indent)-2) {
			out = append(out, indent+"# "+l)
		}
		if code != "" {
			out = append(out, code)
		}
	}
	return out
}
