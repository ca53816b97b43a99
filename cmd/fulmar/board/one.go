// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package board

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// one is what the API tells of one board, as far as it is shown here.
type one struct {
	Name     string            `json:"name"`
	State    string            `json:"state"`
	Cause    string            `json:"cause"`
	Since    time.Time         `json:"since"`
	LastSeen time.Time         `json:"last_seen"`
	Online   bool              `json:"online"`
	Release  string            `json:"release"`
	KeyMode  string            `json:"key_mode"`
	Facts    map[string]string `json:"facts"`
	Meta     rest.Meta         `json:"meta"`
	Latest   []struct {
		Series  string         `json:"series"`
		Value   float64        `json:"value"`
		Quality schema.Quality `json:"quality"`
		At      time.Time      `json:"at"`
	} `json:"latest"`
	Reports []struct {
		Subject  string          `json:"subject"`
		State    string          `json:"state"`
		Severity schema.Severity `json:"severity"`
		Text     string          `json:"text"`
		At       time.Time       `json:"at"`
	} `json:"reports"`
	Cameras []struct {
		Name   string    `json:"name"`
		Model  string    `json:"model"`
		Engine string    `json:"engine"`
		Last   time.Time `json:"last"`
		Events uint64    `json:"events"`
	} `json:"cameras"`
	Ledger []struct {
		Class   string            `json:"class"`
		Made    uint64            `json:"made"`
		Arrived uint64            `json:"arrived"`
		Lost    uint64            `json:"lost"`
		Waiting uint64            `json:"waiting"`
		Reasons map[string]uint64 `json:"reasons"`
	} `json:"ledger"`
}

func boardShow(ctx context.Context, fl *remote.Client, f *boardFlags, stdout, stderr io.Writer) error {
	path := "/api/v1/boards/" + url.PathEscape(f.words[0])
	if f.format.Quiet() {
		var raw json.RawMessage
		if err := fl.Get(ctx, path, nil, &raw); err != nil {
			return err
		}
		return show.JSON(stdout, raw)
	}
	var b one
	if err := fl.Get(ctx, path, nil, &b); err != nil {
		return err
	}
	write(stdout, &b, time.Now())
	fmt.Fprintln(stderr, fl.Page("/boards/"+url.PathEscape(b.Name)))
	return nil
}

func write(w io.Writer, b *one, now time.Time) {
	fmt.Fprintf(w, "%s  %s", show.Clean(b.Name), strings.ToUpper(b.State))
	if b.Cause != "" {
		fmt.Fprintf(w, "  %s", show.Clean(b.Cause))
	}
	if !b.Since.IsZero() {
		fmt.Fprintf(w, "  (for %s)", show.Age(b.Since, now))
	}
	heard := "never"
	if !b.LastSeen.IsZero() {
		heard = show.Ago(b.LastSeen, now)
	}
	fmt.Fprintf(w, "\n  %-10s %s\n  %-10s %s\n", "last heard", heard, "key", show.Clean(b.KeyMode))
	if b.Release != "" {
		fmt.Fprintf(w, "  %-10s %s\n", "release", show.Clean(b.Release))
	}
	writeMeta(w, b.Meta)
	for _, k := range sorted(keys(b.Facts)) {
		fmt.Fprintf(w, "  %-10s %s\n", show.Clean(k), show.Clean(b.Facts[k]))
	}
	for _, r := range b.Reports {
		fmt.Fprintf(w, "report  %-24s %-8s %s (%s)\n", show.Clean(r.Subject), show.Clean(r.State), show.Clean(r.Text), show.Ago(r.At, now))
	}
	for _, c := range b.Cameras {
		fmt.Fprintf(w, "camera  %-24s %s on %s, %d events in the last hour, newest %s\n", show.Clean(c.Name), show.Clean(c.Model), show.Clean(c.Engine), c.Events, show.Ago(c.Last, now))
	}
	for _, x := range b.Latest {
		value := "-" // one that is not good has none
		if x.Quality == schema.QualityGood {
			value = fmt.Sprintf("%.6g", x.Value)
		}
		fmt.Fprintf(w, "sensor  %-24s %-12s %s (%s)\n", show.Clean(x.Series), value, x.Quality, show.Ago(x.At, now))
	}
	for _, l := range b.Ledger {
		fmt.Fprintf(w, "ledger  %-24s %d made = %d arrived + %d lost + %d on their way", show.Clean(l.Class), l.Made, l.Arrived, l.Lost, l.Waiting)
		for _, k := range sorted(keys(l.Reasons)) {
			fmt.Fprintf(w, "; %d lost: %s", l.Reasons[k], show.Clean(k))
		}
		fmt.Fprintln(w)
	}
}

func keys[V any](m map[string]V) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
