// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package alerts

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/fleet/query"
	"fulmar/fleet/query/boards"
	"fulmar/fleet/web"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// member is one thing that a rule found: a board or a sample.
type member struct {
	key    string            // tells it from the others of the rule
	name   string            // of the board
	labels map[string]string // of its group
	value  *float64
}

// look evaluates rules. A rule that is off finds nothing; one that fails is not in found
// and has a sentence in errs.
func (w *Watch) look(ctx context.Context, tenant string, rules []rest.AlertRule, now time.Time) (found map[string][]member, errs map[string]string) {
	found, errs = map[string][]member{}, map[string]string{}
	ctx, cancel := context.WithTimeout(ctx, lookAll)
	defer cancel()
	ov, failed := w.overview(ctx, tenant)
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range rules {
		rule := &rules[i]
		done := func(ms []member, err error) {
			mu.Lock()
			defer mu.Unlock()
			ms, err = bounded(ms, err)
			if ms != nil {
				found[rule.ID] = ms
			}
			if err != nil {
				errs[rule.ID] = err.Error()
			}
		}
		switch {
		case rule.Off:
			done([]member{}, nil)
		case rule.Query != "" && failed != nil:
			done(nil, failed)
		case rule.Query != "":
			done(inBoards(rule, ov))
		default:
			wg.Go(func() {
				select {
				case slots <- struct{}{}:
					defer func() { <-slots }()
					done(w.inSeries(ctx, tenant, rule, now))
				case <-ctx.Done():
					done(nil, errLate)
				}
			})
		}
	}
	wg.Wait()
	return found, errs
}

var errLate = errors.New("other rules took too long: it was not evaluated")

func (w *Watch) overview(ctx context.Context, tenant string) (*web.Overview, error) {
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	return w.cfg.Overview(ctx, tenant)
}

// bounded holds what a rule found to its bounds. Too many groups are cut, in an order
// that stays, and said so; too many members are an error.
func bounded(ms []member, err error) ([]member, error) {
	if err != nil {
		return nil, err
	}
	if len(ms) > maxMembers {
		return nil, fmt.Errorf("it finds %d, at most %d; make it narrower", len(ms), maxMembers)
	}
	groups := map[string]bool{}
	for i := range ms {
		groups[fingerprint("", "", ms[i].labels)] = true
	}
	if len(groups) <= maxAlerts {
		return ms, nil
	}
	keep := slices.Sorted(maps.Keys(groups))[:maxAlerts]
	ms = slices.DeleteFunc(ms, func(m member) bool {
		_, in := slices.BinarySearch(keep, fingerprint("", "", m.labels))
		return !in
	})
	return ms, fmt.Errorf("it gives %d alerts, %d are kept; group them with by", len(groups), maxAlerts)
}

func inBoards(rule *rest.AlertRule, ov *web.Overview) ([]member, error) {
	q, err := query.Parse(rule.Query)
	if err != nil {
		return nil, err
	}
	out := []member{}
	for _, b := range boards.Select(ov, q) {
		m := member{key: b.Name, name: b.Name, labels: map[string]string{}}
		if len(rule.By) == 0 {
			m.labels["board"] = b.Name
		}
		for _, f := range rule.By {
			if v, ok := boards.Of(b).Field(f); ok {
				m.labels[label(f)] = clip(v.Text, maxValue)
			}
		}
		out = append(out, m)
	}
	return out, nil
}

func (w *Watch) inSeries(ctx context.Context, tenant string, rule *rest.AlertRule, now time.Time) ([]member, error) {
	if w.cfg.Instant == nil {
		return nil, errNoSeries
	}
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	samples, err := w.cfg.Instant(ctx, tenant, rule.PromQL, now)
	if err != nil {
		return nil, err
	}
	out := []member{}
	for i := range samples {
		s := &samples[i]
		m := member{key: fingerprint("", "", s.Labels), name: s.Labels["board"], labels: map[string]string{}, value: &s.Value}
		for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
			v := s.Labels[k]
			if (len(rule.By) == 0 && k != "__name__" || slices.Contains(rule.By, k)) && v != "" && len(m.labels) < maxGroup {
				m.labels[clip(k, maxKey)] = clip(v, maxValue)
			}
		}
		out = append(out, m)
	}
	return out, nil
}

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}

// label makes a label's name of a field's: label.line is label_line.
func label(field string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, field)
}

// fingerprint tells alerts, groups and samples apart by their labels.
func fingerprint(tenant, rule string, labels map[string]string) string {
	h := sha256.New()
	put := func(s string) {
		_ = binary.Write(h, binary.BigEndian, uint32(len(s))) // a hash takes all
		h.Write([]byte(s))
	}
	put(tenant)
	put(rule)
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		put(k)
		put(labels[k])
	}
	return hex.EncodeToString(h.Sum(nil)[:10])
}

// sentence says what is wrong, where, and on how many: "board unreachable: 11 boards, site
// hall-4: connection lost".
func sentence(rule *rest.AlertRule, labels map[string]string, names []string) string {
	s := rule.Summary + ": "
	switch {
	case rule.Query == "" && len(names) == 1:
	case rule.Query == "":
		s += words.Plural(len(names), "sample", "samples")
	case len(names) == 1:
		s += names[0]
	default:
		s += words.Plural(len(names), "board", "boards")
	}
	var scope []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if k != "cause" && (k != "board" || rule.Query == "") {
			scope = append(scope, k+" "+labels[k])
		}
	}
	if len(scope) > 0 {
		s = strings.TrimSuffix(s, ": ")
		if strings.HasSuffix(s, rule.Summary) {
			s += ": " + strings.Join(scope, ", ")
		} else {
			s += ", " + strings.Join(scope, ", ")
		}
	}
	if cause := labels["cause"]; cause != "" {
		s += ": " + cause
	}
	return strings.TrimSuffix(s, ": ")
}
