// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package targets tells a Prometheus where boards serve their own metrics, by its HTTP
// service discovery (https://prometheus.io/docs/prometheus/latest/http_sd/).
//
// By default a board serves metrics on a Unix socket, which nobody scrapes from afar;
// one whose config has status.listen on a port is scraped where its label "metrics" in
// the fleet says, host:port. Boards without that label are not listed.
package targets

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// Label is the label of a board that names where it serves metrics, as host:port.
const Label = "metrics"

// Board is what is told of a board.
type Board struct {
	Name, Site string
	Labels     map[string]string
}

type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// Handler serves the boards that list gives; who asks is in the request's context, as
// list knows it. A board's labels become label_NAME. An answer without boards is [].
func Handler(list func(context.Context) (tenant string, boards []Board, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tenant, boards, err := list(r.Context())
		if err != nil {
			http.Error(w, "the boards could not be listed; try again", http.StatusServiceUnavailable)
			return
		}
		out := []group{}
		for _, b := range boards {
			addr := b.Labels[Label]
			if !reachable(addr) {
				continue
			}
			l := map[string]string{"tenant": tenant, "board": b.Name}
			if b.Site != "" {
				l["site"] = b.Site
			}
			for k, v := range b.Labels {
				if k != Label {
					l["label_"+clean(k)] = v
				}
			}
			out = append(out, group{[]string{addr}, l})
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(out) // the asker has gone
	})
}

// reachable tells whether the address is host:port and nothing more: Prometheus would
// take a path or another scheme out of it.
func reachable(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || host == "" || n < 1 || n > 65535 {
		return false
	}
	return net.ParseIP(host) != nil || strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789-._") == ""
}

func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, s)
}
