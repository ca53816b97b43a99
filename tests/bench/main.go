// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench runs the real programs on loopback and prints what they cost and
// how fast they are, as a table: the end-to-end half of `make bench`.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"fulmar/fleet/web"
	"fulmar/tests/local"
)

func main() {
	bin := flag.String("bin", "bin", "folder of the programs")
	ort := flag.String("ort", "", "path of libonnxruntime")
	length := flag.Duration("for", 60*time.Second, "how long each part is measured")
	only := flag.String("only", "", "one part: cost, speed or commands; all of them if empty")
	flag.Parse()
	if err := bench(*bin, *ort, *only, *length); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(bin, ort, only string, length time.Duration) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	fmt.Println("| measure | value |")
	fmt.Println("|---|---|")
	for _, n := range []string{"fulmard", "fulmar-infer", "fulmar-fleet", "arm64/fulmard"} {
		if st, err := os.Stat(filepath.Join(bin, n)); err == nil {
			fmt.Printf("| binary %s | %.1f MB |\n", n, float64(st.Size())/1e6)
		}
	}
	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"cost", func() error { return costs(bin, length) }},
		{"speed", func() error { return speed(bin, ort, length) }},
		{"commands", func() error { return commands(bin, ort) }},
	} {
		if only != "" && only != part.name {
			continue
		}
		if err := part.run(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

func costs(bin string, length time.Duration) error {
	for _, c := range []struct{ name, extra string }{
		{"idle (host sensors at their default periods)", "infer: {mode: \"off\"}\n"},
		{"40 sensors each second beside them, /metrics scraped each second", "sensors: {synthetic: 40}\ninfer: {mode: \"off\"}\n"},
	} {
		if err := cost(bin, length, c.name, c.extra); err != nil {
			return err
		}
	}
	return nil
}

// site starts a fleet and a board in a folder of their own.
func site(bin, ort string, b local.Board) (*local.Site, *local.Proc, func(), error) {
	dir, err := os.MkdirTemp("", "fulmar-bench")
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := local.New(dir, bin, ort)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := s.StartFleet(context.Background()); err != nil {
		return nil, nil, nil, err
	}
	config, err := s.PrepareBoard(b)
	if err != nil {
		return nil, nil, nil, err
	}
	p, err := s.StartBoard(b.Name, config)
	if err != nil {
		return nil, nil, nil, err
	}
	return s, p, func() {
		p.Kill()
		s.Fleet.Kill()
		_ = os.RemoveAll(dir)
	}, nil
}

// cost measures memory and processor time of fulmard.
func cost(bin string, length time.Duration, name, extra string) error {
	s, p, stop, err := site(bin, "/none", local.Board{Name: "dock-1", Extra: extra, NoInfer: true})
	if err != nil {
		return err
	}
	defer stop()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.BoardDir("dock-1"), "status.sock"))
		},
	}}
	time.Sleep(10 * time.Second) // enrolment and the first connection are not the daily cost
	before, err := local.UsageOf(p.PID())
	if err != nil {
		return err
	}
	begin := time.Now()
	for time.Since(begin) < length {
		time.Sleep(time.Second)
		if resp, err := client.Get("http://board/metrics"); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	u, err := local.UsageOf(p.PID())
	if err != nil {
		return err
	}
	fmt.Printf("| fulmard, %s: RSS | %.1f MB (bound 16, goal 12) |\n", name, float64(u.RSS)/1e6)
	fmt.Printf("| fulmard, %s: RssAnon | %.1f MB (bound 8, goal 6) |\n", name, float64(u.Anon)/1e6)
	fmt.Printf("| fulmard, %s: CPU | %.2f %% of a core |\n", name, 100*(u.CPU-before.CPU).Seconds()/time.Since(begin).Seconds())
	return nil
}

// speed measures the way of a sample and of a frame through everything.
func speed(bin, ort string, length time.Duration) error {
	s, _, stop, err := site(bin, ort, local.Board{Name: "dock-1", Extra: local.SceneYAML})
	if err != nil {
		return err
	}
	defer stop()
	api, err := s.API()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), length+20*time.Second)
	defer cancel()
	time.Sleep(10 * time.Second)
	var sensor []float64
	var last time.Time
	for begin := time.Now(); time.Since(begin) < length; time.Sleep(20 * time.Millisecond) {
		b, err := api.Board(ctx, "dock-1")
		if err != nil {
			continue
		}
		i := slices.IndexFunc(b.Latest, func(r web.Reading) bool { return r.Series == "cpu.load_percent" })
		if i >= 0 && b.Latest[i].At.After(last) {
			if last = b.Latest[i].At; !last.IsZero() {
				sensor = append(sensor, float64(time.Since(last).Microseconds())/1000)
			}
		}
	}
	var reply struct {
		Detections []web.Detection `json:"detections"`
	}
	if err := api.Get(ctx, "/api/v1/detections?limit=200", &reply); err != nil {
		return err
	}
	var stored, found []float64
	for _, d := range reply.Detections {
		stored = append(stored, float64(d.Arrived.Sub(d.At).Microseconds())/1000)
		found = append(found, float64(d.Event.LatencyUs)/1000)
	}
	row("sensor read to shown by the API (page adds its own beat of 1 s)", sensor)
	row("frame captured to detections, in the worker", found)
	row("frame captured to event stored at the fleet", stored)
	return nil
}

func row(name string, ms []float64) {
	if len(ms) == 0 {
		fmt.Printf("| %s | nothing measured |\n", name)
		return
	}
	slices.Sort(ms)
	fmt.Printf("| %s, p50 / p99 of %d | %.1f / %.1f ms |\n", name, len(ms), ms[len(ms)/2], ms[len(ms)*99/100])
}
