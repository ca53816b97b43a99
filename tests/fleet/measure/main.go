// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command measure says what many boards cost a real fleet server on this machine, as rows
// of a table: `make bench` runs it. The boards run beside the server on the same cores, so
// only the server's own processor time and memory are told, and latencies are those of
// both together.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fulmar/schema"
	"fulmar/tests/fleet/sim"
	"fulmar/tests/local"
)

func main() {
	bin := flag.String("bin", "bin", "folder of the programs")
	boards := flag.Int("boards", 10_000, "boards that are connected")
	length := flag.Duration("for", 30*time.Second, "how long each part is measured")
	only := flag.String("only", "", "one part: idle, living, flat or twin; all of them if empty")
	flag.Parse()
	fmt.Println("| measure | value |")
	fmt.Println("|---|---|")
	for _, part := range []struct {
		name string
		run  func(bin string, boards int, length time.Duration) error
	}{{"idle", idle}, {"living", living}, {"flat", flat}, {"twin", twin}} {
		if *only != "" && *only != part.name {
			continue
		}
		if err := part.run(*bin, *boards, *length); err != nil {
			fmt.Fprintln(os.Stderr, "measure:", err)
			os.Exit(1)
		}
	}
}

// bench is a server and boards.
type bench struct {
	*local.Site
	dir  string
	stop []func()
}

func open(bin string) (*bench, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fulmar-measure")
	if err != nil {
		return nil, err
	}
	s, err := local.New(dir, bin, "/none")
	if err != nil {
		return nil, err
	}
	return &bench{Site: s, dir: dir}, s.StartFleet(context.Background())
}

func (b *bench) close() {
	for _, stop := range b.stop {
		stop()
	}
	b.Fleet.Kill()
	_ = os.RemoveAll(b.dir)
}

// start enrols boards and lets them live.
func (b *bench) start(cfg sim.Config) (*sim.Fleet, error) {
	var err error
	if cfg.Token, err = b.JoinTokens(cfg.Boards); err != nil {
		return nil, err
	}
	f, err := sim.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := f.Enrol(context.Background()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	b.stop = append(b.stop, func() { cancel(); <-done })
	return f, nil
}

func (b *bench) connected(f *sim.Fleet, boards int) error {
	for end := time.Now().Add(10 * time.Minute); f.Stats().Connected < int64(boards); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("of %d boards not all connect: %+v", boards, f.Stats())
		}
	}
	return nil
}

// idle is what boards cost that are connected and say nothing.
func idle(bin string, boards int, length time.Duration) error {
	b, err := open(bin)
	if err != nil {
		return err
	}
	defer b.close()
	cfg := sim.Config{Boards: boards, Sites: 250, Every: -1, EventEvery: -1, PictureEvery: -1, Spread: true}
	if cfg.Token, err = b.JoinTokens(boards); err != nil {
		return err
	}
	// Enrolled first: what enrolment costs is not a connection's.
	f, err := sim.New(cfg)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := f.Enrol(context.Background()); err != nil {
		return err
	}
	fmt.Printf("| %d boards enrol (software keys, 16 at a time) | %.0f a second |\n", boards, float64(boards)/time.Since(begin).Seconds())
	time.Sleep(2 * time.Second)
	before, err := local.UsageOf(b.Fleet.PID())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	b.stop = append(b.stop, func() { cancel(); <-done })
	if err := b.connected(f, boards); err != nil {
		return err
	}
	came, err := local.UsageOf(b.Fleet.PID())
	if err != nil {
		return err
	}
	each := (came.CPU - before.CPU).Seconds() / float64(boards)
	fmt.Printf("| connect: mutual TLS in full, CONNECT, hello and presence stored; processor time of the server | %.2f ms, so %.0f a second and core |\n", each*1e3, 1/each)
	time.Sleep(length) // its memory settles
	u, err := local.UsageOf(b.Fleet.PID())
	if err != nil {
		return err
	}
	fmt.Printf("| RSS of the server with %d idle boards, less %.0f MB without | %.1f KB a board |\n", boards, float64(before.RSS)/1e6, float64(u.RSS-before.RSS)/float64(boards)/1e3)
	return b.back(f, boards)
}

// back is what it costs that all boards come back after a restart of the server: they know
// each other, so nothing is new but the connection.
func (b *bench) back(f *sim.Fleet, boards int) error {
	if _, err := b.Fleet.Stop(); err != nil {
		return err
	}
	for f.Stats().Connected > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if err := b.StartFleet(context.Background()); err != nil {
		return err
	}
	before, err := local.UsageOf(b.Fleet.PID())
	if err != nil {
		return err
	}
	begin, was := time.Now(), f.Stats()
	if err := b.connected(f, boards); err != nil {
		return err
	}
	took := time.Since(begin)
	time.Sleep(2 * time.Second) // what they say after the hello
	u, err := local.UsageOf(b.Fleet.PID())
	if err != nil {
		return err
	}
	fmt.Printf("| %d boards back after a restart of the server; connections that failed; processor time of the server | %.1f s; %d; %.2f ms a board |\n",
		boards, took.Seconds(), f.Stats().Failed-was.Failed, (u.CPU-before.CPU).Seconds()*1e3/float64(boards))
	return nil
}

// living is a fleet in which each board sends a batch of 15 series every 5 s and an event a
// minute, and how long a batch takes to the event that tells a page of it.
func living(bin string, boards int, length time.Duration) error {
	b, err := open(bin)
	if err != nil {
		return err
	}
	defer b.close()
	l := &lag{made: map[string]time.Time{}}
	f, err := b.start(sim.Config{Boards: boards, Sites: 250, Seed: 3, EventEvery: time.Minute, PictureEvery: -1, Spread: true, Made: l.note})
	if err != nil {
		return err
	}
	if err := b.connected(f, boards); err != nil {
		return err
	}
	go l.listen(b.Site)
	time.Sleep(10 * time.Second)
	l.begin()
	before, err := local.UsageOf(b.Fleet.PID())
	if err != nil {
		return err
	}
	disk, first, begin := written(b.Fleet.PID()), f.Stats(), time.Now()
	time.Sleep(length)
	u, err := local.UsageOf(b.Fleet.PID())
	if err != nil {
		return err
	}
	n := f.Stats()
	messages := float64(n.Messages - first.Messages)
	took := time.Since(begin).Seconds()
	fmt.Printf("| %d boards, a batch each 5 s, %.0f messages a second: processor time of the server | %.1f ms for 1,000 messages, %.0f %% of a core |\n",
		boards, messages/took, (u.CPU-before.CPU).Seconds()/messages*1e6, 100*(u.CPU-before.CPU).Seconds()/took)
	fmt.Printf("| the same, RSS of the server | %.0f MB |\n", float64(u.RSS)/1e6)
	fmt.Printf("| the same, written to disk | %.1f MB a second, %.1f KB a message |\n", float64(written(b.Fleet.PID())-disk)/took/1e6, float64(written(b.Fleet.PID())-disk)/messages/1e3)
	l.tell(boards)
	return nil
}

// flat is as many messages as go through: each holds one batch of 15 series.
func flat(bin string, _ int, length time.Duration) error {
	b, err := open(bin)
	if err != nil {
		return err
	}
	defer b.close()
	const boards = 400
	f, err := b.start(sim.Config{Boards: boards, Sites: 40, Every: 4 * time.Millisecond, EventEvery: -1, PictureEvery: -1, Packed: 1, Spread: true})
	if err != nil {
		return err
	}
	if err := b.connected(f, boards); err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	before, err := local.UsageOf(b.Fleet.PID())
	if err != nil {
		return err
	}
	first, begin := f.Stats(), time.Now()
	time.Sleep(length)
	u, err := local.UsageOf(b.Fleet.PID())
	if err != nil {
		return err
	}
	messages, took := float64(f.Stats().Messages-first.Messages), time.Since(begin).Seconds()
	cpu := (u.CPU - before.CPU).Seconds()
	fmt.Printf("| flat out, %d boards beside the server on the same cores: committed messages | %.0f a second |\n", boards, messages/took)
	fmt.Printf("| the same, processor time of the server for 1,000 messages | %.1f ms, so %.0f a second and core (goal 10,000) |\n", cpu/messages*1e6, messages/cpu)
	return nil
}

// written is what a process has had written to disk, bytes.
func written(pid int) (n int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, _ = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return n
}

// lag measures from the making of a batch to the event that names its board.
type lag struct {
	mu   sync.Mutex
	made map[string]time.Time // of the oldest batch of a board that was not told of
	took []float64            // ms
	err  error
}

func (l *lag) note(id schema.ID) {
	if id.Class != schema.ClassMetric {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, waits := l.made[id.Board]; !waits {
		l.made[id.Board] = time.Now()
	}
}

func (l *lag) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = nil
}

// listen reads the stream of changes until the server ends.
func (l *lag) listen(s *local.Site) {
	api, err := s.API()
	if err == nil {
		err = api.Stream(context.Background(), "/api/v1/events", l.line)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *lag) line(text string) {
	data, ok := strings.CutPrefix(text, "data: ")
	var x struct{ Boards []string }
	if !ok || json.Unmarshal([]byte(data), &x) != nil {
		return
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range x.Boards {
		if at, waits := l.made[b]; waits {
			l.took = append(l.took, float64(now.Sub(at).Microseconds())/1000)
			delete(l.made, b)
		}
	}
}

func (l *lag) tell(boards int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.took) == 0 {
		fmt.Printf("| batch made to the event that tells a page | nothing measured (%v) |\n", l.err)
		return
	}
	slices.Sort(l.took)
	fmt.Printf("| batch made to the event that tells a page, %d boards, p50 / p99 of %d | %.0f / %.0f ms (the page adds its own beat of 1 s) |\n",
		boards, len(l.took), l.took[len(l.took)/2], l.took[len(l.took)*99/100])
}
