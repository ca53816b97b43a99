// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"fmt"
	"image"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fulmar/inference/camera"
	"fulmar/inference/worker"
	"fulmar/internal/sdnotify"
	"fulmar/schema"
)

// onDemand gives a frame whenever the benchmark wants one.
type onDemand struct {
	want chan struct{}
	n    uint64
	img  image.Image
}

func (o *onDemand) Next(ctx context.Context) (*camera.Frame, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-o.want:
	}
	o.n++
	return &camera.Frame{Image: o.img, Number: o.n, At: time.Now()}, nil
}
func (o *onDemand) Close() error { return nil }

type arrived chan struct{}

func (a arrived) Result(context.Context, *worker.Result) { a <- struct{}{} }
func (a arrived) Status(context.Context, *worker.Status) {}

// BenchmarkFrameToEvent is a frame's way from its source to fulmard's handler with a
// model that costs nothing: slot, lane, event, queue, codec, socket.
func BenchmarkFrameToEvent(b *testing.B) {
	dir, err := os.MkdirTemp("", "fi")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	src := &onDemand{want: make(chan struct{}), img: image.NewRGBA(image.Rect(0, 0, 640, 384))}
	r := newRig(oneBox)
	r.cfg.Open = func(worker.Camera) (camera.Source, error) { return src, nil }
	var server *worker.Server
	r.cfg.Send = func(res worker.Result) { server.Send(res) }
	r.cfg.Clock = schema.NewClock(1, 0)
	p := New(r.cfg)
	ln, err := sdnotify.Listen(filepath.Join(dir, "s"))
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	server = worker.NewServer("b", ln, p, log)
	came := make(arrived)
	client := worker.NewClient("b", (&worker.Unit{Socket: filepath.Join(dir, "s")}).Dial, came, log)
	if err := client.Update(setup(worker.Camera{Name: "cam0", Kind: "scene", FPS: 100})); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 3)
	for _, part := range []func(context.Context) error{p.Run, server.Run, client.Run} {
		go func() { done <- part(ctx) }()
	}
	for b.Loop() {
		src.want <- struct{}{}
		<-came
	}
	cancel()
	for range 3 {
		<-done
	}
}

// BenchmarkBoard is taking the next frames when all of 32 cameras have one.
func BenchmarkBoard(b *testing.B) {
	for _, most := range []int{1, 16} {
		b.Run(fmt.Sprintf("batch%d", most), func(b *testing.B) {
			board := newBoard()
			board.join(standing("m", &costly{most: most}))
			f := &camera.Frame{At: time.Now()}
			for range worker.MaxCameras {
				board.offer(&cameraRun{cfg: worker.Camera{Model: "m"}, period: time.Second}, f)
			}
			var t batch
			frames := 0
			b.ReportAllocs()
			for b.Loop() {
				board.take(&t)
				frames += len(t.items)
				for i := range t.items {
					board.offer(t.items[i].camera, f)
				}
				board.done(&t, len(t.items), time.Millisecond)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(frames), "ns/frame")
		})
	}
}
