// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fulmar/schema/onboard"
	"fulmar/schema/rest"
	"fulmar/tests/local"
)

const (
	// rounds is how many commands of each kind are given; p99 is then the second worst.
	rounds = 200
	// pace keeps one caller below what the API lets it ask: 20 a second, and each command
	// is asked about once.
	pace = 110 * time.Millisecond
)

// valves are two outputs of a Modbus device in this process. The second one's value is
// also kept for the next start, so it waits for the disk once more after it was set.
const valves = `outputs:
  - {name: valve.plain, kind: modbus, min: 0, max: 1000, restore: leave, modbus: {address: "tcp:%[1]s", device: 1, register: 0}}
  - {name: valve.kept, kind: modbus, min: 0, max: 1000, restore: last, modbus: {address: "tcp:%[1]s", device: 1, register: 1}}
`

// commands measures commands of the fleet and of a person at the board, to an output, with
// the journal on disk: first on a board that is quiet, then on one that looks at a camera
// as fast as it can.
func commands(bin, ort string) error {
	d, err := newDevice()
	if err != nil {
		return err
	}
	defer d.l.Close()
	for _, c := range []struct {
		name  string
		board local.Board
	}{
		{"board without inference", local.Board{Extra: "infer: {mode: \"off\"}\n", NoInfer: true}},
		{"CPU loaded by inference", local.Board{Extra: strings.Replace(local.SceneYAML, "fps: 10", "fps: 240", 1)}},
	} {
		c.board.Name = "dock-1"
		c.board.Extra += fmt.Sprintf(valves, d.l.Addr())
		s, p, stop, err := site(bin, ort, c.board)
		if err != nil {
			return err
		}
		err = given(s, p, d, c.name)
		stop()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, p.Output())
		}
	}
	return nil
}

func given(s *local.Site, p *local.Proc, d *device, name string) error {
	time.Sleep(12 * time.Second) // enrolment, the first connection, the worker's start
	fmt.Printf("| load at the start of: %s | %s |\n", name, load())
	before, err := local.UsageOf(p.PID())
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := byPerson(s, d, name); err != nil {
		return err
	}
	if err := byFleet(s, d, name); err != nil {
		return err
	}
	u, err := local.UsageOf(p.PID())
	if err != nil {
		return err
	}
	fmt.Printf("| fulmard meanwhile (%s) | %.1f %% of a core |\n", name, 100*(u.CPU-before.CPU).Seconds()/time.Since(begin).Seconds())
	return nil
}

// byPerson gives commands over the local socket, as fulmar local does.
func byPerson(s *local.Site, d *device, name string) error {
	path := filepath.Join(s.BoardDir("dock-1"), "local.sock")
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	flush, end, err := flusher(s.Dir)
	if err != nil {
		return err
	}
	defer end()
	for register, output := range []string{"valve.plain", "valve.kept"} {
		var effect, answer, flushes []float64
		for i := range rounds {
			v := uint16(i%999 + 1)
			order, err := json.Marshal(onboard.Order{Name: "set-output", Args: setting(output, v), Wait: 20})
			if err != nil {
				return err
			}
			begin := time.Now()
			resp, err := client.Post("http://board/v1/commands", "application/json", bytes.NewReader(order))
			if err != nil {
				return err
			}
			text, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(`"done"`)) {
				return fmt.Errorf("command over the local socket: %s, %v: %s", resp.Status, err, text)
			}
			answer = append(answer, since(begin, time.Now()))
			now, at := d.set(uint16(register))
			if now != v {
				return fmt.Errorf("the device has %d, not %d", now, v)
			}
			effect = append(effect, since(begin, at))
			time.Sleep(10 * time.Millisecond)
			begin = time.Now()
			if err := flush(); err != nil {
				return err
			}
			flushes = append(flushes, since(begin, time.Now()))
			time.Sleep(10 * time.Millisecond)
		}
		row(fmt.Sprintf("local command to %s, %s: to the word at the device", output, name), effect)
		row("the same, to the answer that it is done", answer)
		row("an append of 300 bytes flushed to the same disk by this process, between those commands", flushes)
	}
	return nil
}

// flusher makes the least that a journal does, to tell what of a command is the disk's.
func flusher(dir string) (flush func() error, end func(), err error) {
	f, err := os.Create(filepath.Join(dir, "flushes"))
	if err != nil {
		return nil, nil, err
	}
	line := bytes.Repeat([]byte("x"), 300)
	return func() error {
		if _, err := f.Write(line); err != nil {
			return err
		}
		return syscall.Fdatasync(int(f.Fd()))
	}, func() { _ = f.Close() }, nil
}

// byFleet gives commands over the fleet's API. How far each came when is what the fleet
// keeps of it, by the clock of this machine.
func byFleet(s *local.Site, d *device, name string) error {
	api, err := s.Admin()
	if err != nil {
		return err
	}
	ctx := context.Background()
	var posted, accepted, effect, done []float64
	for i := range rounds {
		v := uint16(i%999 + 1)
		if v == 1 {
			v = 1000 // what the last part left may be 1
		}
		var c rest.Command
		begin := time.Now()
		err := api.Post(ctx, "/api/v1/commands", rest.CommandSpec{Name: "set-output", Args: setting("valve.plain", v), Boards: []string{"dock-1"}}, &c)
		if err != nil {
			return err
		}
		posted = append(posted, since(begin, time.Now()))
		time.Sleep(pace)
		row, err := ended(ctx, api, c.ID)
		if err != nil {
			return err
		}
		now, at := d.set(0)
		if now != v {
			return fmt.Errorf("the device has %d, not %d", now, v)
		}
		effect = append(effect, since(begin, at))
		for _, e := range row.Events {
			switch e.State {
			case rest.CommandAccepted:
				accepted = append(accepted, since(begin, e.At))
			case rest.CommandDone:
				done = append(done, since(begin, e.At))
			}
		}
	}
	row("command by the API, "+name+": the request to its answer (stored at the fleet)", posted)
	row("the same, the request to the board's word that it is accepted, at the fleet", accepted)
	row("the same, the request to the word at the device", effect)
	row("the same, the request to the board's last word at the fleet (round trip)", done)
	return nil
}

// ended waits for the end of a command.
func ended(ctx context.Context, api *local.API, id string) (*rest.CommandBoard, error) {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(pace) {
		var c rest.Command
		if err := api.Get(ctx, "/api/v1/commands/"+id, &c); err != nil {
			return nil, err
		}
		if len(c.Boards) == 1 && rest.CommandFinal(c.Boards[0].State) {
			if c.Boards[0].State != rest.CommandDone {
				return nil, fmt.Errorf("command %s: %s: %s", id, c.Boards[0].State, c.Boards[0].Text)
			}
			return &c.Boards[0], nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("command %s is not over: %+v", id, c.Counts)
		}
	}
}

func setting(output string, v uint16) json.RawMessage {
	return fmt.Appendf(nil, `{"output":%q,"value":%d}`, output, v)
}

func since(begin, at time.Time) float64 { return float64(at.Sub(begin).Microseconds()) / 1000 }

func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	words := strings.Fields(string(b))
	return strings.Join(words[:min(3, len(words))], " ")
}
