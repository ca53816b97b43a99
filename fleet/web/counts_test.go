// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"maps"
	"regexp"
	"strconv"
	"strings"

	. "fulmar/fleet/web"
	"fulmar/fleet/web/views"
	"fulmar/fleet/web/words"
)

func viewsOf(m *memory) views.Config { return views.Config{Source: m, Metas: m} }

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// words0 writes a count as the page does.
func words0(n int) string { return words.Count(uint64(n)) }

// dotsOf counts the drawn boards by state: strokes of the page's sites, a cell a board.
func dotsOf(body string) map[State]int {
	out := map[State]int{}
	for _, svg := range regexp.MustCompile(`(?s)<svg class="dots c(\d+)".*?</svg>`).FindAllStringSubmatch(body, -1) {
		cell := atoi(svg[1])
		for _, p := range regexp.MustCompile(`<path class="(\w+)" d="([^"]*)"`).FindAllStringSubmatch(svg[0], -1) {
			st := State(p[1])
			if p[1] == "never" {
				st = StateNeverHeard
			}
			for _, run := range strings.Split(p[2], "M")[1:] {
				_, h, _ := strings.Cut(run, "h")
				out[st] += (atoi(h) + 1) / cell
			}
		}
	}
	return out
}

func equalCounts(a, b map[State]int) bool { return maps.Equal(a, b) }
