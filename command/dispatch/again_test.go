// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/command"
)

func (b *bench) local(id byte, name string) (command.ID, command.Result, error) {
	c := command.Command{V: 1, Name: name, Actor: "rule/hot"}
	c.ID[0], c.ID[15] = id, 9
	r, err := b.d.SubmitLocal(context.Background(), c)
	return c.ID, r, err
}

// TestGivenAgain: a rule gives what it gave in an earlier life of the program, under its
// old id, while another command keeps it from being judged. The rule was told that it is
// taken, so it has to be done.
func TestGivenAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		move := command.Handler{Name: "move", Repeat: true, Timeout: time.Hour, Do: func(ctx context.Context, _ command.Call) ([]byte, error) {
			select {
			case <-time.After(20 * time.Second):
				return nil, nil
			case <-ctx.Done():
				return nil, command.ErrNextStart // as in a crash: begun, and not ended
			}
		}}
		b := newBench(t, move, quick("set"))
		moved, _ := b.give("move")
		if _, r, err := b.local(1, "set"); err != nil || r.State != command.Accepted {
			t.Fatal(r, err)
		}
		synctest.Wait()
		b.stop()
		b.start(move, quick("set"))
		synctest.Wait()
		id, r, err := b.local(1, "set")
		if err != nil || r.State != command.Accepted {
			t.Fatalf("given again: %+v, %v", r, err)
		}
		b.ends(moved, command.Done, "")
		b.ends(id, command.Done, "")
	})
}

// TestStopTakesNoTime: who gives a command to a program that is being stopped hears it at
// once; a rule that waits would keep the stop from its end.
func TestStopTakesNoTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		deaf := command.Handler{Name: "deaf", Do: func(context.Context, command.Call) ([]byte, error) { time.Sleep(4 * time.Second); return nil, nil }}
		b := newBench(t, deaf)
		id, _ := b.give("deaf")
		synctest.Wait()
		waited := make(chan error)
		go func() {
			r, err := b.d.Wait(context.Background(), id)
			if err == nil && !r.State.Final() {
				err = errors.New("it is not final")
			}
			waited <- err
		}()
		synctest.Wait()
		begun := time.Now()
		go b.stop()
		time.Sleep(time.Second)
		if _, _, err := b.local(1, "deaf"); !errors.Is(err, errOver) || time.Since(begun) > time.Second {
			t.Errorf("while it stops: %v after %v", err, time.Since(begun))
		}
		if err := <-waited; err != nil || time.Since(begun) > 4*time.Second {
			t.Errorf("who waited: %v after %v", err, time.Since(begun))
		}
		synctest.Wait()
		if _, _, err := b.local(2, "deaf"); !errors.Is(err, errOver) {
			t.Errorf("after it: %v", err)
		}
	})
}

// TestWhoHasGone: those who asked for the end of a long command and left are forgotten.
func TestWhoHasGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, slow("move", command.Normal))
		id, _ := b.give("move")
		for range 100 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			if _, err := b.d.Wait(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		synctest.Wait()
		if n := len(b.d.waiting[id]); n < 1 || n > 2 {
			t.Errorf("%d are remembered", n)
		}
	})
}
