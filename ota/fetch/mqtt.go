// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"fulmar/ota/fetch/timers"
	"fulmar/ota/release"
	"fulmar/schema"
	"fulmar/schema/ota"
)

const (
	// inbox is how many pieces wait to be written; one more is as one that was lost: the
	// reader of the link does not wait.
	inbox = 16
	// silence is how long nothing may come, at least, before pieces are taken for lost: the
	// fleet says when it has sent them all, and a connection that ends says so too. A late
	// piece that is asked for again comes twice.
	silence = 10 * time.Second
	// maxSilence is how often in a row words may stay without any answer before other ways
	// have their turn.
	maxSilence = 4
	// maxWrong is how many pieces that are not of the object are passed over.
	maxWrong = 16
	// maxHold bounds what the fleet may ask to wait.
	maxHold = 10 * time.Minute
	// lineTimeout bounds what is told at the end.
	lineTimeout = 5 * time.Second
	linePause   = time.Second
	lineLast    = 15 * time.Second // a look at a line that is down costs nothing
)

// Line is what a [MQTT] source needs of the link, see link.Session.
type Line interface {
	Send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error
	Hear(ctx context.Context, tree string) (lost <-chan struct{}, err error)
	Leave(ctx context.Context, tree string) error
}

// MQTT is the fleet's way by the link.
type MQTT struct {
	line Line

	mu   sync.Mutex
	jobs map[release.Hash]chan *ota.Down
}

// NewMQTT makes the source. What comes on schema.ChanPiece is to be given to [MQTT.Take].
func NewMQTT(line Line) *MQTT { return &MQTT{line: line, jobs: map[release.Hash]chan *ota.Down{}} }

// Name names it.
func (m *MQTT) Name() string { return "mqtt" }

// Take takes a piece or a hold. It does not block; what is of no job is dropped.
func (m *MQTT) Take(d *ota.Down) {
	var object []byte
	switch {
	case d.Piece != nil:
		object = d.Piece.Object
	case d.Hold != nil:
		object = d.Hold.Object
	}
	if len(object) != len(release.Hash{}) {
		return
	}
	m.mu.Lock()
	ch := m.jobs[release.Hash(object)]
	m.mu.Unlock()
	if ch == nil {
		return
	}
	for {
		select {
		case ch <- d:
			return
		default:
		}
		if d.Hold == nil {
			return
		}
		// That all was sent must not be lost with what was: nothing else tells of it, and the
		// wait for it is long. A piece goes for it, which is asked for again.
		select {
		case <-ch:
		default:
		}
	}
}

// Bring brings what it can by the link.
func (m *MQTT) Bring(ctx context.Context, j *Job) error {
	ch := make(chan *ota.Down, inbox)
	m.mu.Lock()
	if m.jobs[j.Tree] != nil {
		m.mu.Unlock()
		return ErrTwice
	}
	m.jobs[j.Tree] = ch
	m.mu.Unlock()
	t := &talk{
		m: m, j: j, in: ch, answer: timers.Estimate{First: 15 * time.Second, Least: silence, Most: time.Minute},
		gap: timers.Estimate{First: 5 * time.Second, Least: 2 * time.Second, Most: 30 * time.Second},
	}
	err := t.run(ctx)
	m.mu.Lock()
	delete(m.jobs, j.Tree)
	m.mu.Unlock()
	t.giveUp()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lineTimeout)
	defer cancel()
	if t.hears {
		_ = m.line.Leave(ctx, j.Tree.String()) // the connection ends it too
	}
	if t.open {
		_ = t.want(ctx, nil) // best effort: what is still sent is passed over
	}
	return err
}

// talk is what the fleet is asked for one job. It belongs to one goroutine.
type talk struct {
	m  *MQTT
	j  *Job
	in <-chan *ota.Down

	lost      <-chan struct{} // of the connection whose topic is heard
	hears     bool
	hearAgain time.Time
	leave     bool // it is to be left
	left      bool // it was heard, and is not needed any more
	open      bool // the fleet may still be sending

	asked   map[int]uint32  // on their way, claimed, and by which word
	id      uint32          // of the last word
	first   bool            // nothing has come yet of what was asked last
	at      time.Time       // of the last word
	due     time.Time       // when what is on its way is lost
	until   time.Time       // of a hold
	stray   time.Time       // until when what nobody asked for may go on coming: a pass
	came    time.Time       // of the last piece
	answer  timers.Estimate // from a word to its first piece
	gap     timers.Estimate // between pieces
	window  timers.Window
	silence int // words in a row that nothing came for
	wrong   int
	pause   time.Duration // before the line is tried again
}

func (t *talk) run(ctx context.Context) error {
	t.asked = map[int]uint32{}
	for {
		select {
		case <-t.j.Over():
			t.open = len(t.asked) > 0
			return nil
		default:
		}
		wait, err := t.step(ctx)
		if err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-t.j.Over():
		case <-t.lost:
			t.cut()
		case d := <-t.in:
			err = t.take(d)
		case <-timer.C:
		}
		timer.Stop()
		if err != nil {
			return err
		}
	}
}

// cut forgets what belongs to a connection.
func (t *talk) cut() {
	t.lost, t.hears, t.open = nil, false, false
	t.giveUp()
	t.until, t.stray = time.Time{}, time.Time{}
	t.answer.Calm()
	t.gap.Calm()
	t.hearAgain = time.Time{}
}

// giveUp lets go of what is on its way.
func (t *talk) giveUp() {
	for i := range t.asked {
		t.j.Yield(i)
	}
	clear(t.asked)
}

// step does what is to be done now, and tells when there may be more.
func (t *talk) step(ctx context.Context) (wait time.Duration, err error) {
	now := time.Now()
	if !t.hears && !t.left && !now.Before(t.hearAgain) {
		lost, err := t.m.line.Hear(ctx, t.j.Tree.String())
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if t.hearAgain = now.Add(lineLast); err == nil {
			t.lost, t.hears = lost, true
		} // else pieces come on the board's own topic, if there is a connection
	}
	if len(t.asked) > 0 && !now.Before(t.due) {
		t.giveUp()
		t.window.Lost()
		t.answer.Lost()
		t.gap.Lost()
		if t.silence++; t.silence >= maxSilence {
			return 0, fmt.Errorf("the fleet does not answer: %d words for object %s without a piece", t.silence, t.j.Tree)
		}
	}
	if t.leave {
		// What is missing now is asked for: another pass, for who came late, would bring much
		// that is here.
		t.hears, t.left, t.leave = false, true, false
		if err := t.m.line.Leave(ctx, t.j.Tree.String()); ctx.Err() != nil {
			return 0, errors.Join(ctx.Err(), err)
		}
	}
	quiet := t.until
	if t.stray.After(quiet) {
		quiet = t.stray
	}
	if now.Before(quiet) {
		return quiet.Sub(now), nil
	}
	if room := t.window.Pieces() - len(t.asked); len(t.asked) == 0 || room > t.window.Pieces()/2 {
		if err := t.ask(ctx, room); err != nil {
			return t.again(), nil //nolint:nilerr // the line is down: tried again
		}
	}
	if len(t.asked) == 0 {
		return linePause, nil // others are about to bring the rest
	}
	return max(time.Until(t.due), 0), nil
}

// again gives the pause before the line is tried again.
func (t *talk) again() time.Duration {
	if !t.hears {
		t.hearAgain = time.Time{} // there is no connection
	}
	t.pause = min(max(2*t.pause, linePause), lineLast)
	return t.pause/2 + rand.N(t.pause/2)
}

// ask asks for pieces.
func (t *talk) ask(ctx context.Context, room int) error {
	own := t.j.Claim(max(room, 1), false)
	if len(own) == 0 {
		return nil
	}
	size := 0
	for _, i := range own {
		size += t.j.PieceSize(i)
	}
	if err := t.j.Allow(ctx, size); err != nil {
		t.j.Yield(own...)
		return err
	}
	begun := time.Now()
	if err := t.want(ctx, own); err != nil {
		t.j.Yield(own...)
		return err
	}
	t.due = time.Now().Add(t.answer.Timeout())
	t.first, t.open, t.pause, t.at = true, true, 0, begun
	for _, i := range own {
		t.asked[i] = t.id
	}
	return nil
}

// want says a word; nil ends the sending. Its PUBACK is waited for: without a connection
// there is none, and nothing comes.
func (t *talk) want(ctx context.Context, own []int) error {
	w := ota.Want{V: schema.Version, Object: t.j.Tree[:], Size: t.j.Size, Cast: t.hears}
	if len(own) > 0 {
		from, bitmap := t.j.Missing(own, ota.MaxMissing)
		t.id++
		w.From, w.Missing, w.Credit, w.ID = uint32(from), bitmap, uint16(len(own)), t.id
	}
	b, err := schema.Encode(&w)
	if err != nil {
		return err
	}
	return t.m.line.Send(ctx, schema.ChanWant, "", b)
}

// take takes a word of the fleet.
func (t *talk) take(d *ota.Down) error {
	now := time.Now()
	if h := d.Hold; h != nil {
		if h.Refused != "" {
			return fmt.Errorf("%w: %.200q", ErrRefused, h.Refused)
		}
		for i, id := range t.asked {
			if id <= h.Done {
				t.j.Yield(i)
				delete(t.asked, i)
			}
		}
		t.silence = 0
		have, all := t.j.Have()
		t.leave = t.hears && have*2 > all
		if h.ForMs == 0 { // there is nothing to wait for
			return nil
		}
		// Half of it is jitter: all who hear a topic are told the same.
		d := min(time.Duration(h.ForMs)*time.Millisecond, maxHold)
		t.until, t.stray = now.Add(d/2+rand.N(d/2+1)), time.Time{}
		t.due = t.until.Add(t.answer.Timeout())
		return nil
	}
	if d.Piece == nil {
		return nil
	}
	i := int(d.Piece.Index)
	_, err := t.j.Put(i, d.Piece.Data, d.Piece.Path)
	switch {
	case errors.Is(err, ErrLied):
		if t.wrong++; t.wrong > maxWrong {
			return fmt.Errorf("%d pieces: %w", t.wrong, ErrLied)
		}
		return nil
	case err != nil:
		return err
	}
	t.silence = 0
	if _, ok := t.asked[i]; !ok { // of a pass, or late
		if !t.came.IsZero() && t.stray.After(now) {
			t.gap.Take(now.Sub(t.came))
		}
		t.came, t.stray = now, now.Add(t.gap.Timeout())
		return nil
	}
	delete(t.asked, i)
	t.j.Yield(i)
	if t.first {
		t.first = false
		t.answer.Take(now.Sub(t.at))
		t.window.Took(now.Sub(t.at), now)
	} else {
		t.gap.Take(now.Sub(t.came))
		t.window.Next(now.Sub(t.came), now)
	}
	t.came, t.due = now, now.Add(t.answer.Timeout())
	return nil
}
