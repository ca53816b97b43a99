// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package abi

import (
	_ "embed" // the C++ part of the probe
	"fmt"
	"strings"
)

//go:embed probe.h
var probeText string

// standIn is what the library's headers name from the CUDA runtime: types only.
const standIn = `#pragma once
typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;
typedef int cudaError_t;
`

// probe writes a program that includes the headers that are there and prints what it
// sees of all that the table names.
func (t *Table) probe(there map[string]bool) string {
	p := prober{t: t, there: there}
	for _, h := range t.headers() {
		if there[h] {
			p.top("#include \"%s\"", h)
		}
	}
	p.b.WriteString(probeText)
	p.fallbacks()
	p.say(`fl::say("version", "library", std::to_string(NV_TENSORRT_MAJOR) + "." + std::to_string(NV_TENSORRT_MINOR) + "." + std::to_string(NV_TENSORRT_PATCH));`)
	for _, c := range t.Classes {
		if there[c.Header] {
			p.class(c)
		}
	}
	p.groups()
	for _, f := range t.Functions {
		if there[f.Header] {
			p.say(`fl::say("function", "%s", fl::function<decltype(&::%s)>::is());`, f.Name, f.Name)
		}
	}
	return p.b.String() + "int main() {\n" + p.main.String() + "}\n"
}

// headers lists the headers of the table, in its order.
func (t *Table) headers() []string {
	var out []string
	seen := map[string]bool{}
	add := func(h string) {
		if !seen[h] {
			seen[h] = true
			out = append(out, h)
		}
	}
	for _, g := range t.Structs {
		add(g.Header)
	}
	for _, g := range t.Enums {
		add(g.Header)
	}
	for _, c := range t.Classes {
		add(c.Header)
	}
	for _, f := range t.Functions {
		add(f.Header)
	}
	return out
}

type prober struct {
	t       *Table
	there   map[string]bool
	b, main strings.Builder
	n       int
}

func (p *prober) top(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }
func (p *prober) say(format string, args ...any) { fmt.Fprintf(&p.main, "\t"+format+"\n", args...) }

// id gives a function of the probe a name.
func (p *prober) id() string {
	p.n++
	return fmt.Sprintf("fl_%d", p.n)
}

// fallbacks declares each name a second time, in a namespace that is looked into
// only where the headers do not have it. So a name that a major lacks is a type
// without a body and not an error.
func (p *prober) fallbacks() {
	classes := map[string]bool{}
	for _, c := range p.t.Classes {
		classes[c.CPP] = true
	}
	declare := func(name, form string) {
		i := strings.LastIndex(name, "::")
		if i < 0 || classes[name[:i]] {
			return
		}
		space := "fl_absent_" + strings.ReplaceAll(name[:i], "::", "_")
		p.top("namespace %s { %s }", space, fmt.Sprintf(form, name[i+2:]))
		open, end := "", ""
		for _, part := range strings.Split(name[:i], "::") {
			open, end = open+"namespace "+part+" { ", end+"} "
		}
		p.top("%susing namespace ::%s; %s", open, space, end)
	}
	for _, c := range p.t.Classes {
		declare(c.CPP, "class %s;")
		if c.Public != "" {
			declare(c.Public, "class %s;")
		}
	}
	for _, g := range p.t.Structs {
		declare(g.CPP, "class %s;")
	}
	for _, g := range p.t.Enums {
		declare(g.CPP, "enum class %s : int;")
	}
	for _, f := range p.t.Functions {
		p.top("namespace fl_absent { extern fl::absent *%s; }", f.Name)
	}
	p.top("namespace fl_absent {} using namespace fl_absent;")
}

func (p *prober) class(c *Class) {
	p.say(`fl::say("length", "%s", fl::length<%s>(0));`, c.Name, c.CPP)
	if c.Public != "" {
		p.say(`fl::say("public", "%s", fl::deleting<%s>(0));`, c.Name, c.Public)
		id := p.id()
		p.top("FL_MEMBER(%s, %s)", id, c.Member)
		p.say(`fl::say("second", "%s", %s<%s, %s>(0));`, c.Name, id, c.Public, c.CPP)
	}
	if c.Info != nil {
		p.say(`fl::say("info", "%s", fl::info<%s>(0));`, c.Name, c.CPP)
	}
	for _, m := range c.Methods {
		name := c.Name + "::" + m.Name
		if m.Name == "delete" {
			p.say(`fl::say("slot", "%s", fl::deleting<%s>(0));`, name, c.CPP)
			continue
		}
		id := p.id()
		if m.Overload != "" {
			p.top("FL_OVERLOAD(%s, %s, %s)", id, m.Name, m.Overload)
		} else {
			p.top("FL_METHOD(%s, %s)", id, m.Name)
		}
		p.say(`fl::tell("%s", %s<%s>(0));`, name, id, c.CPP)
	}
}

func (p *prober) groups() {
	ask := func(g *Group, kind, macro string, rows []Row) {
		for _, r := range rows {
			id := p.id()
			p.top("%s(%s, %s)", macro, id, r.Name)
			p.say(`fl::say("%s", "%s::%s", %s<%s>(0));`, kind, g.Name, r.Name, id, g.CPP)
		}
	}
	for _, g := range p.t.Enums {
		if p.there[g.Header] {
			ask(g, "value", "FL_VALUE", g.Items)
		}
	}
	for _, g := range p.t.Structs {
		if p.there[g.Header] {
			p.say(`fl::say("size", "%s", fl::size<%s>(0));`, g.Name, g.CPP)
			ask(g, "field", "FL_FIELD", g.Items)
			ask(g, "item", "FL_ITEM", g.Widths)
		}
	}
}
