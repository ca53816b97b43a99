// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package beside

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// token is the client's word on one message.
type token struct {
	done chan struct{}
	err  error
}

func (t *token) Wait() bool                     { <-t.done; return true }
func (t *token) WaitTimeout(time.Duration) bool { panic("not used") }
func (t *token) Done() <-chan struct{}          { return t.done }
func (t *token) Error() error                   { return t.err }

// line is a client whose PUBACKs come when the test says so.
type line struct {
	mu     sync.Mutex
	tokens []*token
	acked  []Key
}

func (l *line) config() Config {
	order := uint64(0)
	return Config{
		Publish: func(string, []byte) mqtt.Token {
			l.mu.Lock()
			defer l.mu.Unlock()
			t := &token{done: make(chan struct{})}
			l.tokens = append(l.tokens, t)
			return t
		},
		Order:   func() uint64 { order++; return order },
		Acked:   func(k Key) { l.mu.Lock(); l.acked = append(l.acked, k); l.mu.Unlock() },
		Timeout: time.Minute,
	}
}

func (l *line) ack(i int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens[i].err = err
	close(l.tokens[i].done)
}

func (l *line) sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.tokens)
}

// TestBound: at most eight are without a PUBACK, also where all callers went away; each
// PUBACK lets one more go.
func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := make(chan struct{})
		l, p := &line{}, New(lost)
		ended := make(chan error, 1)
		go func() { ended <- p.Run(t.Context(), l.config()) }()
		var got sync.Map
		for i := range 20 {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i)*time.Second)
				defer cancel()
				got.Store(i, p.Send(ctx, Key{Tail: fmt.Sprint(i)}, "t", nil))
			}()
			synctest.Wait() // in this order
		}
		if n := l.sent(); n != MaxFlying {
			t.Fatalf("%d are on the way, wants %d", n, MaxFlying)
		}
		l.ack(0, nil)
		synctest.Wait()
		if err, _ := got.Load(0); err != nil || l.sent() != MaxFlying+1 {
			t.Fatalf("after a PUBACK: %v, %d were sent", err, l.sent())
		}
		time.Sleep(30 * time.Second) // all callers went away
		synctest.Wait()
		for i := 1; i < 20; i++ {
			if err, ok := got.Load(i); !ok || !errors.Is(err.(error), context.DeadlineExceeded) {
				t.Errorf("%d: %v", i, err)
			}
		}
		if n := l.sent(); n != MaxFlying+1 {
			t.Errorf("%d were sent, wants no more than before", n)
		}
		if key, order, ok := p.Oldest(); !ok || key.Tail != "1" || order != 2 {
			t.Errorf("the oldest is %v, %d, %v", key, order, ok)
		}
		for i := 1; i <= MaxFlying; i++ {
			l.ack(i, nil)
		}
		synctest.Wait()
		if _, _, ok := p.Oldest(); ok || len(l.acked) != MaxFlying+1 || l.acked[1].Tail != "1" {
			t.Errorf("acknowledged: %v, one is left: %v", l.acked, ok)
		}
		close(lost)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := p.Send(t.Context(), Key{}, "t", nil); !errors.Is(err, ErrLost) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestEnds: silence, a failed write and a loss end it, and who waits is told.
func TestEnds(t *testing.T) {
	for name, end := range map[string]func(l *line, lost chan struct{}){
		"silence": func(*line, chan struct{}) { time.Sleep(time.Minute) },
		"write":   func(l *line, _ chan struct{}) { l.ack(0, errors.New("broken pipe")) },
		"loss":    func(_ *line, lost chan struct{}) { close(lost) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lost := make(chan struct{})
				l, p := &line{}, New(lost)
				ended, sent := make(chan error, 1), make(chan error, 2)
				go func() { ended <- p.Run(t.Context(), l.config()) }()
				for range 2 {
					go func() { sent <- p.Send(t.Context(), Key{}, "t", nil) }()
				}
				synctest.Wait()
				end(l, lost)
				synctest.Wait()
				for range 2 {
					select {
					case err := <-sent:
						if !errors.Is(err, ErrLost) {
							t.Errorf("a caller got %v", err)
						}
					default:
						t.Error("a caller waits on")
					}
				}
				if err := <-ended; (err == nil) != (name == "loss") || errors.Is(err, ErrSilent) != (name == "silence") {
					t.Errorf("it ended with %v", err)
				}
			})
		})
	}
}

// TestBlame: three ends in a row hold one message back for a time; another or a PUBACK
// in between begins anew, and what is held back is bounded.
func TestBlame(t *testing.T) {
	t.Parallel()
	var b Blame
	now := time.Unix(0, 0)
	key := func(i int) Key { return Key{Tail: fmt.Sprint(i)} }
	var got []bool
	for _, i := range []int{1, 1, 2, 1, 1} {
		got = append(got, b.Ended(key(i), now))
	}
	b.Acked(key(1))
	for _, i := range []int{1, 1, 1} {
		got = append(got, b.Ended(key(i), now))
	}
	if want := []bool{false, false, false, false, false, false, false, true}; !slices.Equal(got, want) {
		t.Errorf("%v, wants %v", got, want)
	}
	if left := b.Held(key(1), now.Add(time.Minute)); left != holdFor-time.Minute || b.Held(key(2), now) != 0 {
		t.Errorf("held for %v and %v", left, b.Held(key(2), now))
	}
	if b.Held(key(1), now.Add(holdFor)) != 0 {
		t.Error("it is held back for ever")
	}
	if !b.Ended(key(1), now) {
		t.Error("a try after the time does not hold it back at once")
	}
	b.Acked(key(1))
	if b.Held(key(1), now) != 0 {
		t.Error("it is held back although it was taken")
	}
	for i := range 100 {
		for range strikes {
			b.Ended(key(i), now.Add(time.Duration(i)*time.Second))
		}
	}
	if len(b.held) != maxHeld || b.Held(key(99), now) == 0 {
		t.Errorf("%d are held back", len(b.held))
	}
}
