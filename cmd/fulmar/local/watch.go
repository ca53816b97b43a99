// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/here"
	"fulmar/cmd/fulmar/local/picture"
	"fulmar/internal/cli"
)

const (
	// watchEvery is how often the board is asked: people read no faster.
	watchEvery = time.Second
	plainHigh  = 1 << 16 // lines of what has no end
)

func watchCommand(socket *string) *cobra.Command {
	once := false
	c := &cobra.Command{
		Use: "watch", Short: "a view of this board that goes on; it changes nothing", Args: cli.Words(),
		Long: `Link, autonomy, safety, outputs, rules and the last commands, each second anew. q or Ctrl-C
ends it. Where standard output is no terminal, or with --once, it is drawn once.`,
		Example: "  fulmar local watch\n  fulmar local watch --once >board.txt",
	}
	c.Flags().BoolVar(&once, "once", false, "draw it once")
	return build(socket, words, c, func(ctx context.Context, k *call) error {
		out, ok := k.stdout.(*os.File)
		if once || !ok || !here.IsTerminal(out) {
			p, err := k.picture(ctx)
			if err != nil {
				return err
			}
			for _, l := range p.Lines() {
				fmt.Fprintln(k.stdout, l)
			}
			return nil
		}
		return watch(ctx, k, out)
	})
}

// picture asks for all that it shows.
func (k *call) picture(ctx context.Context) (*picture.Picture, error) {
	s, err := k.state(ctx)
	if err != nil {
		return nil, err
	}
	log, err := k.recent(ctx, picture.Commands)
	if err != nil {
		return nil, err
	}
	return &picture.Picture{State: s, Log: log, Width: picture.WidthOf(k.stdout), Paint: here.Painter(k.stdout)}, nil
}

// watch draws until the person has seen enough. A board that gives no answer is drawn as
// it was last, with that said on top.
func watch(ctx context.Context, k *call, out *os.File) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	p, err := k.picture(ctx)
	if err != nil {
		return err // before the screen is taken
	}
	fmt.Fprint(out, "\x1b[?1049h\x1b[?25l") // a screen of its own, no cursor
	defer fmt.Fprint(out, "\x1b[?25h\x1b[?1049l")
	defer keys(os.Stdin, stop)()
	size := make(chan os.Signal, 1)
	signal.Notify(size, syscall.SIGWINCH)
	defer signal.Stop(size)
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	seen, note := time.Now(), ""
	for {
		p.Width = picture.WidthOf(out)
		draw(out, p.Lines(), note, p.Width, height(out))
		select {
		case <-ctx.Done():
			return nil
		case <-size:
			continue
		case <-t.C:
		}
		switch next, err := k.picture(ctx); {
		case ctx.Err() != nil:
			return nil
		case fault.Is(err, fault.NoRight), fault.Is(err, fault.BoardClosed):
			return err
		case err != nil:
			note = fmt.Sprintf("NO ANSWER for %s; this is as it was", picture.Span(int64(time.Since(seen)/time.Second)))
		default:
			p, note, seen = next, "", time.Now()
		}
	}
}

// draw writes one screen over the last one, without a flicker of an empty one.
func draw(w io.Writer, lines []string, note string, wide, high int) {
	foot := "q ends it; nothing here changes anything"
	if note != "" {
		foot = note
	}
	if room := high - 2; len(lines) > room && room > 0 {
		lines = append(lines[:room-1:room-1], fmt.Sprintf("... %d lines more in a higher window", len(lines)-room+1))
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for _, l := range lines {
		b.WriteString(l + "\x1b[K\r\n")
	}
	p := picture.Picture{Width: wide}
	b.WriteString("\x1b[K\r\n\x1b[7m" + p.Cut(foot) + "\x1b[m\x1b[K\x1b[J")
	_, _ = io.WriteString(w, b.String())
}

func height(f *os.File) int {
	s, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || s.Row == 0 {
		return plainHigh
	}
	return int(s.Row)
}

// keys ends the view with q, read without Return; the terminal is as before when what it
// gives is called.
func keys(in *os.File, stop func()) (restore func()) {
	fd := int(in.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {} // no keyboard: Ctrl-C ends it
	}
	one := *was
	one.Lflag &^= unix.ICANON | unix.ECHO
	one.Cc[unix.VMIN], one.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &one); err != nil {
		return func() {}
	}
	go func() { // it stays behind until the process ends
		b := make([]byte, 1)
		for {
			if n, err := in.Read(b); err != nil || n == 1 && (b[0] == 'q' || b[0] == 'Q') {
				stop()
				return
			}
		}
	}()
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, was) }
}
