// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package diskfaults_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/tests/powerloss/memdisk"
)

const dirEnv = "FULMAR_DISK_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirEnv); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, "disk:", err)
			os.Exit(2)
		}
		return
	}
	os.Exit(m.Run())
}

// serve is the process of a disk: each line in is an order, each line out says that
// it was carried out.
func serve(dir string) error {
	s, err := memdisk.Serve(dir)
	if err != nil {
		return err
	}
	d := s.Add("disk", memdisk.NewImage(32<<20))
	if err := d.Format(); err != nil {
		return err
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		word, arg, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "slow":
			by, err := time.ParseDuration(arg)
			if err != nil {
				return err
			}
			d.DelayFlush(by)
		case "dead":
			d.Fail(0, syscall.EIO)
		case "well":
			d.Fail(0, 0)
			d.DelayFlush(0)
		}
		_, flushes := d.Counts()
		fmt.Println(flushes)
	}
	return s.Close()
}

// disk is a disk in another process and where its file system is mounted.
type disk struct {
	t   *testing.T
	mnt string
	in  io.WriteCloser
	out *bufio.Reader
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	if missing := memdisk.Missing(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	d := &disk{t: t, mnt: t.TempDir()}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), dirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	d.in, d.out = in, bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.tell("well")
		memdisk.Discard(d.mnt)
		_ = d.in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the disk: %v", err)
		}
	})
	d.answer()
	if err := memdisk.Mount(filepath.Join(dir, "disk"), d.mnt, 0, ""); err != nil {
		t.Fatal(err)
	}
	return d
}

// tell gives an order and how many flushes the disk has seen.
func (d *disk) tell(order string) (flushes int) {
	if _, err := fmt.Fprintln(d.in, order); err != nil {
		d.t.Errorf("the disk does not listen: %v", err)
		return 0
	}
	_, _ = fmt.Sscan(d.answer(), &flushes) // "ready" has no number
	return flushes
}

func (d *disk) answer() string {
	line, err := d.out.ReadString('\n')
	if err != nil {
		d.t.Errorf("the disk does not answer: %v", err)
	}
	return line
}

func (d *disk) config() storage.Config {
	cfg := storage.Config{Dir: filepath.Join(d.mnt, "spool"), Clock: schema.NewClock(7, time.Hour)}
	for i := range cfg.Classes {
		cfg.Classes[i] = storage.ClassConfig{SegmentBytes: 64 << 10, QuotaBytes: 4 << 20}
	}
	return cfg
}

func open(t *testing.T, cfg storage.Config) *storage.Spool {
	t.Helper()
	s, err := storage.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run starts the committers and gives how to end them.
func run(t *testing.T, s *storage.Spool) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("Run did not end in 20 s")
		}
	}
}

// drain reads all of a class on disk.
func drain(t *testing.T, s *storage.Spool, c schema.Class) map[uint64]string {
	t.Helper()
	all := map[uint64]string{}
	for from := uint64(0); ; {
		recs, err := s.Read(c, from, 200, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			return all
		}
		for _, r := range recs {
			all[r.Seq] = string(r.Payload)
			from = r.Seq + 1
		}
	}
}
