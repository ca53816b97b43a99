// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/schema"
	"fulmar/twin/section"
	"fulmar/twin/wire"
)

var (
	seedFlag  = flag.Uint64("twin.seed", 0, "run only this schedule, and tell it")
	seedsFlag = flag.Int("twin.schedules", 10_000, "how many random schedules")
)

// sign stands in for trust: the property is about who knows what. That what is not
// signed is not taken has tests of its own.
func sign(statement []byte) ([]byte, error) {
	sum := sha256.Sum256(append([]byte("key"), statement...))
	return append(sum[:], statement...), nil
}

func open(envelope []byte) ([]byte, error) {
	if len(envelope) < 32 {
		return nil, errors.New("too short")
	}
	if again, _ := sign(envelope[32:]); !bytes.Equal(again, envelope) {
		return nil, errors.New("not signed")
	}
	return envelope[32:], nil
}

// policies gives each key of the test one.
func policyOf(key string) Policy {
	p, _ := ParsePolicy(strings.TrimRight(key, "0123456789"))
	return p
}

var keys = []string{"fleet1", "edge1", "max1", "min1", "hold1", "hold2"}

// world is one board and its fleet, and what may go wrong between them.
type world struct {
	t     *testing.T
	r     *rand.Rand
	log   func(string, ...any)
	board *Board
	fleet *Fleet
	// What lies on the disks, with those of earlier times.
	boardDisk, fleetDisk [][]byte
	starts               uint32
	life                 string
	conn                 uint64
	up                   bool
	toFleet, toBoard     [][]byte // under way on the present connection, in order
	late                 [][2]any // of earlier connections: direction and bytes
	n                    uint64   // of values, each used once

	edits    map[string]acked // by value: every edit that was acknowledged
	accounts map[string]bool  // values that somebody replaced knowing them, or that are on record
}

// acked is an edit whose author was told that it is kept.
type acked struct {
	key   string
	dot   wire.Dot
	fleet bool
}

func newWorld(t *testing.T, seed uint64, log func(string, ...any)) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1)), log: log, edits: map[string]acked{}, accounts: map[string]bool{}, life: InstanceOf('f', 1, 1)}
	w.startFleet(nil)
	w.startBoard(nil)
	return w
}

func (w *world) fatal(err error) {
	if err != nil {
		w.t.Helper()
		w.t.Fatal(err)
	}
}

func (w *world) startBoard(saved []byte) {
	w.starts++
	b, err := NewBoard(BoardConfig{Tenant: "t", Board: "b", Instance: InstanceOf('b', w.starts, w.r.Uint32()), Open: open, Policy: policyOf}, saved)
	w.fatal(err)
	w.board = b
	w.cut()
}

func (w *world) startFleet(saved []byte) {
	f, err := NewFleet(FleetConfig{Tenant: "t", Board: "b", Instance: w.life, Sign: sign, Open: open}, saved)
	w.fatal(err)
	w.fleet = f
	w.cut()
}

// saveBoard is what a board does before it tells anybody; what happened is kept with it.
func (w *world) saveBoard() {
	for _, e := range w.board.Events() {
		w.log("  event %+v", e)
		for _, l := range e.Lost {
			w.accounts[string(l.Value)] = true
		}
	}
	w.board.Confirm(len(w.board.Events()))
	b, err := w.board.Save()
	w.fatal(err)
	w.boardDisk = append(w.boardDisk, b)
}

func (w *world) saveFleet() {
	for _, e := range w.fleet.Events() {
		for _, l := range e.Lost {
			w.accounts[string(l.Value)] = true
		}
	}
	w.fleet.Confirm(len(w.fleet.Events()))
	b, err := w.fleet.Save()
	w.fatal(err)
	w.fleetDisk = append(w.fleetDisk, b)
}

func (w *world) cut() {
	if w.up && w.board != nil && w.fleet != nil {
		for _, m := range w.toFleet {
			w.late = append(w.late, [2]any{"up", m})
		}
		for _, m := range w.toBoard {
			w.late = append(w.late, [2]any{"down", m})
		}
	}
	w.up, w.toFleet, w.toBoard = false, nil, nil
}

func (w *world) connect() {
	w.cut()
	w.conn++
	w.up = true
	w.fleet.Connect(w.conn)
	w.sendUp(w.board.Hello(w.conn))
}

func (w *world) sendUp(u *wire.Up) {
	if u == nil {
		return
	}
	b, err := schema.Encode(u)
	w.fatal(err)
	w.toFleet = append(w.toFleet, b)
}

func (w *world) sendDown(d *wire.Down) {
	if d == nil {
		return
	}
	b, err := schema.Encode(d)
	w.fatal(err)
	w.toBoard = append(w.toBoard, b)
}

func (w *world) fleetGets(m []byte) {
	var u wire.Up
	w.fatal(schema.Decode(m, &u))
	d, err := w.fleet.Receive(&u)
	if err != nil && !errors.Is(err, ErrStale) {
		w.t.Fatal(err)
	}
	w.saveFleet()
	if err == nil {
		w.sendDown(d)
	}
}

func (w *world) boardGets(m []byte) {
	var d wire.Down
	w.fatal(schema.Decode(m, &d))
	was := w.board.desired.Version
	u, err := w.board.Receive(&d)
	if w.board.desired.Version < was {
		w.t.Fatalf("desired went back from version %d to %d", was, w.board.desired.Version)
	}
	if err != nil && !errors.Is(err, ErrStale) {
		w.t.Fatal(err)
	}
	w.saveBoard()
	if err == nil {
		w.sendUp(u)
	}
}

// deliver brings one message, now and then twice, and now and then before those that were
// sent earlier: no broker does, and nothing depends on it.
func (w *world) deliver() {
	take := func(queue *[][]byte) []byte {
		i := 0
		if w.r.IntN(6) == 0 {
			i = w.r.IntN(len(*queue))
		}
		m := (*queue)[i]
		if w.r.IntN(5) != 0 {
			*queue = slices.Delete(*queue, i, i+1)
		}
		return m
	}
	if len(w.toFleet) > 0 && (len(w.toBoard) == 0 || w.r.IntN(2) == 0) {
		w.fleetGets(take(&w.toFleet))
	} else if len(w.toBoard) > 0 {
		w.boardGets(take(&w.toBoard))
	}
}

func (w *world) value() Value {
	w.n++
	v, err := ValueOf(w.n*1000 + w.r.Uint64N(1000))
	w.fatal(err)
	return v
}

// replaced accounts for what an author saw of a key before he edited it.
func (w *world) replaced(d *section.Entry, os []section.Entry) {
	if d != nil {
		w.accounts[string(d.Value)] = true
	}
	for _, o := range os {
		w.accounts[string(o.Value)] = true
	}
}

func (w *world) setOnBoard() {
	key, v := keys[w.r.IntN(len(keys))], w.value()
	d, os := w.board.at(key), slices.Clone(w.board.override.Entries[key])
	var lease uint64
	if w.r.IntN(3) == 0 {
		lease = uint64(1+w.r.IntN(60)) * 1000
	}
	w.fatal(w.board.Set(key, Edit{Value: v, Author: "operator", LeaseMs: lease}))
	w.saveBoard()
	w.replaced(d, os)
	w.edits[string(v)] = acked{key, wire.Dot{Actor: w.board.cfg.Instance, N: w.board.n}, false}
	w.log("board sets %s to %x", key, v)
}

func (w *world) editAtFleet() {
	values := map[string]Value{}
	for range 1 + w.r.IntN(2) {
		key := keys[w.r.IntN(len(keys))]
		if values[key] = w.value(); w.r.IntN(5) == 0 {
			values[key] = nil
		}
	}
	for key := range values {
		w.replaced(w.fleet.at(key), w.fleet.override.Entries[key])
	}
	version, err := w.fleet.Edit("alice", "", values)
	w.fatal(err)
	w.saveFleet()
	for key, v := range values {
		if v != nil {
			w.edits[string(v)] = acked{key, wire.Dot{Actor: w.life, N: version}, true}
		}
		w.log("fleet sets %s to %x in version %d", key, v, version)
	}
}

// putBack gives a disk as it was some saves ago. What was acknowledged since and is
// nowhere else is not to be had any more.
func (w *world) putBackBoard() {
	if len(w.boardDisk) == 0 {
		return
	}
	w.boardDisk = w.boardDisk[:1+w.r.IntN(len(w.boardDisk))]
	w.startBoard(w.boardDisk[len(w.boardDisk)-1])
	w.excuse()
	w.log("the board's disk is put back")
}

// excuse takes out the edits that no disk holds any more.
func (w *world) excuse() {
	for v, e := range w.edits {
		there := known(w.board.override, e.dot) || known(w.fleet.override, e.dot)
		if e.fleet {
			there = w.board.desired.Entries[e.key].Dot == e.dot || w.fleet.desired.Entries[e.key].Dot == e.dot
		}
		if !there {
			delete(w.edits, v)
		}
	}
}

func known(o *section.Override, dot wire.Dot) bool { return o.Clock[dot.Actor] >= dot.N }

func (w *world) restoreFleet() {
	if len(w.fleetDisk) == 0 {
		return
	}
	w.fleetDisk = w.fleetDisk[:1+w.r.IntN(len(w.fleetDisk))]
	was := w.fleet
	w.life = InstanceOf('f', uint32(w.n)+2, w.r.Uint32())
	w.startFleet(w.fleetDisk[len(w.fleetDisk)-1])
	w.excuse()
	w.log("the fleet is restored, from version %d to %d", was.desired.Version, w.fleet.desired.Version)
}

// judge is the board finding itself well with what holds, or not.
func (w *world) judge() {
	if w.r.IntN(3) > 0 {
		w.board.Prove(func(string) bool { return w.r.IntN(4) > 0 })
	} else if w.board.Undo("unwell") {
		w.log("the board undoes what was not proven")
	}
	w.saveBoard()
}

func (w *world) step(restores bool) {
	switch n := w.r.IntN(100); {
	case n < 12:
		w.setOnBoard()
	case n < 24:
		w.editAtFleet()
	case n < 27:
		key := keys[w.r.IntN(len(keys))]
		w.replaced(nil, w.board.override.Entries[key])
		w.log("board clears %s: %v", key, w.board.Clear(key))
		w.saveBoard()
	case n < 31:
		w.board.Tick(time.Duration(w.r.IntN(20)) * time.Second)
		w.saveBoard()
	case n < 33:
		w.judge()
	case n < 36:
		w.fatal(w.board.Report(map[string]Value{keys[w.r.IntN(len(keys))]: w.value(), keys[w.r.IntN(len(keys))]: nil}))
	case n < 42:
		w.connect()
		w.log("connection %d", w.conn)
	case n < 46:
		w.cut()
	case n < 49: // the board dies; what it saved is there
		w.log("the board starts anew")
		w.startBoard(last(w.boardDisk))
	case n < 52:
		w.startFleet(last(w.fleetDisk))
	case n < 54 && restores:
		w.putBackBoard()
	case n < 55 && restores:
		w.restoreFleet()
	case n < 60:
		if w.up {
			w.sendUp(w.board.Pending())
			w.sendDown(w.fleet.Push())
		}
	case n < 66:
		if len(w.late) > 0 { // a packet of an earlier connection comes after all
			i := w.r.IntN(len(w.late))
			m := w.late[i]
			if m[0] == "up" {
				w.fleetGets(m[1].([]byte))
			} else {
				w.boardGets(m[1].([]byte))
			}
		}
	default:
		w.deliver()
	}
}

func last(disk [][]byte) []byte {
	if len(disk) == 0 {
		return nil
	}
	return disk[len(disk)-1]
}

// heal lets one connection stand until nothing is said any more, and counts.
func (w *world) heal() (ups, downs int) {
	w.connect()
	for len(w.toFleet)+len(w.toBoard) > 0 {
		if len(w.toFleet) > 0 {
			m := w.toFleet[0]
			w.toFleet = w.toFleet[1:]
			ups++
			w.fleetGets(m)
			continue
		}
		m := w.toBoard[0]
		w.toBoard = w.toBoard[1:]
		downs++
		w.boardGets(m)
		if ups+downs > 20 {
			w.t.Fatal("they talk without end")
		}
	}
	return ups, downs
}

// check says what must hold once the sides have spoken.
func (w *world) check() {
	b, f := w.board, w.fleet
	if b.desired.Version != f.desired.Version || !bytes.Equal(b.desired.Digest(), f.desired.Digest()) {
		w.t.Errorf("desired differs: version %d and %d", b.desired.Version, f.desired.Version)
	}
	if !bytes.Equal(b.override.Digest(), f.override.Digest()) {
		w.t.Errorf("override differs:\n%+v\n%+v", b.override, f.override)
	}
	if !maps.EqualFunc(b.reported, f.reported, bytes.Equal) {
		w.t.Errorf("reported differs: %v, %v", b.reported, f.reported)
	}
	// What the board went back from is told by its reason, not by the sections.
	_, refused := b.Version()
	open := func(all []Conflict) []Conflict {
		return slices.DeleteFunc(all, func(c Conflict) bool { return refused[c.Key] != "" })
	}
	if bc, fc := open(b.Conflicts()), open(f.Conflicts()); !slices.EqualFunc(bc, fc, func(x, y Conflict) bool { return reflect.DeepEqual(x, y) }) {
		w.t.Errorf("conflicts differ: %+v, %+v", bc, fc)
	}
	for _, key := range keys {
		if refused[key] != "" {
			continue
		}
		bv, bs := b.Effective(key)
		fv, fs := f.Effective(key)
		if !bytes.Equal(bv, fv) || bs != fs {
			w.t.Errorf("%s is %x on the board and %x at the fleet", key, bv, fv)
		}
	}
	for _, c := range b.Conflicts() {
		if c.Policy != PolicyHold {
			w.t.Errorf("policy %v left a conflict: %+v", c.Policy, c)
		}
	}
	for v, e := range w.edits {
		there := string(b.desired.Entries[e.key].Value) == v
		for _, o := range b.override.Entries[e.key] {
			there = there || string(o.Value) == v
		}
		if !there && !w.accounts[v] {
			w.t.Errorf("the edit of %s to %x (%+v) is gone without a word", e.key, v, e)
		}
	}
}

// TestSchedules: whatever was cut, lost, doubled, late, crashed or put back, after one
// connection both sides hold the same, it took two messages each way, and no edit that
// was acknowledged is gone unless its replacer knew it or a record tells of it.
func TestSchedules(t *testing.T) {
	first, n := uint64(1), *seedsFlag
	if *seedFlag > 0 {
		first, n = *seedFlag, 1
	}
	if testing.Short() {
		n = min(n, 500)
	}
	const shards = 8
	for shard := range shards {
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			for i := shard; i < n; i += shards {
				seed := first + uint64(i)
				log := func(string, ...any) {}
				if *seedFlag > 0 {
					log = t.Logf
				}
				w := newWorld(t, seed, log)
				restores := seed%3 == 0
				for range 40 + w.r.IntN(80) {
					w.step(restores)
				}
				behind := w.fleet.behind || w.fleet.base > 0
				ups, downs := w.heal()
				w.check()
				if ups > 2 && !behind || downs > 2 || ups > 3 {
					t.Errorf("healing took %d messages up and %d down", ups, downs)
				}
				if t.Failed() {
					t.Fatalf("schedule %d; to see it: go test ./twin -run TestSchedules -twin.seed %d -v", seed, seed)
				}
			}
		})
	}
}
