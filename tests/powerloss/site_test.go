// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package powerloss_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/tests/powerloss/memdisk"
)

const (
	roleEnv  = "FULMAR_POWERLOSS_ROLE"
	seedEnv  = "FULMAR_POWERLOSS_SEED"
	pointEnv = "FULMAR_POWERLOSS_POINT"

	// diskBytes holds four classes of the tests at their largest, four times.
	diskBytes = 48 << 20
	// lanes is how many points are looked at side by side: one more than cores, as
	// each waits for mounts.
	lanes = 3
	// lookLimit bounds the look at one point; most take 0.1 s.
	lookLimit = 20 * time.Second
	// freshSession marks what the checker appends.
	freshSession = 1 << 30
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "worker":
		session, err := strconv.Atoi(os.Args[4])
		seed, err2 := strconv.ParseUint(os.Args[5], 10, 64)
		if err != nil || err2 != nil {
			die(fmt.Errorf("%w, %w", err, err2))
		}
		work(profileNamed(os.Args[1]), os.Args[2], os.Args[3], session, seed)
	case "checker":
		checker()
	default:
		os.Exit(m.Run())
	}
}

// child is this program in another role.
func child(t *testing.T, role string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "GOMAXPROCS=2")
	cmd.Stderr = t.Output()
	return cmd
}

// life is the log of a disk that a spool lived on.
type life struct {
	p     profile
	base  *memdisk.Image
	log   []memdisk.Op
	bytes int64
	opens []int // positions at which a session began or began to close
}

// site is where disks are served and mounted.
type site struct {
	server *memdisk.Server
	dir    string
	mu     sync.Mutex     // lives ask for their disks side by side
	empty  *memdisk.Image // formatted
}

func newSite(t *testing.T) *site {
	t.Helper()
	if missing := memdisk.Missing(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	s := &site{dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(s.dir, "disks"), 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.server, err = memdisk.Serve(filepath.Join(s.dir, "disks")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.server.Close(); err != nil {
			t.Error(err)
		}
	})
	d := s.server.Add("first", memdisk.NewImage(diskBytes))
	if err := d.Format(); err != nil {
		t.Fatal(err)
	}
	s.empty = d.Image()
	return s
}

// disk gives a disk and the folder to mount it at.
func (s *site) disk(t *testing.T, name string) (*memdisk.Disk, string) {
	t.Helper()
	mnt := filepath.Join(s.dir, name)
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	img := s.empty.Clone()
	s.mu.Unlock()
	return s.server.Add(name, img), mnt
}

// live lets a spool live on a new disk for a number of sessions.
func (s *site) live(t *testing.T, name string, p profile, sessions int, seed uint64) *life {
	t.Helper()
	d, mnt := s.disk(t, name)
	if err := d.Mount(mnt, p.mount); err != nil {
		t.Fatal(err)
	}
	defer memdisk.Discard(mnt)
	l := &life{p: p, base: d.Record()}
	for n := range sessions {
		if err := child(t, "worker", p.name, mnt, d.Path()+".notes", strconv.Itoa(n), strconv.FormatUint(seed, 10)).Run(); err != nil {
			t.Errorf("%s: session %d: %v", p.name, n, err)
			return nil
		}
	}
	l.log, l.bytes = d.Log()
	began := 0
	for at, op := range l.log {
		open := strings.HasPrefix(op.Note, "open ")
		if open {
			began++
		}
		if open || op.Note == "closing" {
			l.opens = append(l.opens, at)
		}
	}
	if began != sessions { // with the notes of another disk, or without its own, it proves nothing
		t.Errorf("%s: its log tells of %d sessions, it had %d", p.name, began, sessions)
		return nil
	}
	if err := memdisk.Unmount(mnt); err != nil {
		t.Error(err)
	}
	return l
}

// positions chooses n moments: some anywhere, some when much is not flushed, some
// soon after a start or in a stop. They rise.
func (l *life) positions(n int, rng *rand.Rand) []int {
	out := make([]int, 0, n)
	for len(out) < n {
		at := rng.IntN(len(l.log) + 1)
		switch rng.IntN(10) {
		case 0, 1, 2: // just before a flush
			for at < len(l.log) && !l.log[at].Flush {
				at++
			}
		case 3, 4, 5: // soon after something began
			at = min(len(l.log), l.opens[rng.IntN(len(l.opens))]+rng.IntN(150))
		}
		out = append(out, at)
	}
	slices.Sort(out)
	return out
}

// notes are those before a position.
func (l *life) notes(at int) (notes []string) {
	for _, op := range l.log[:at] {
		if op.Note != "" {
			notes = append(notes, op.Note)
		}
	}
	return notes
}

// point is one power loss to look at.
type point struct {
	n     int
	p     profile
	at    int
	img   *memdisk.Image
	notes []string
	facts *facts
	again bool // lose the power once more in the recovery
	seed  uint64
}

func (pt *point) String() string {
	return fmt.Sprintf("point %d (%s, operation %d)", pt.n, pt.p.name, pt.at)
}

// lane looks at one point after the other on a disk of its own.
type lane struct {
	t    *testing.T
	disk *memdisk.Disk
	mnt  string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

func (s *site) lane(t *testing.T, n int) *lane {
	d, mnt := s.disk(t, "lane"+strconv.Itoa(n))
	return &lane{t: t, disk: d, mnt: mnt}
}

// ask gives the mounted disk to the checking process.
func (l *lane) ask(p profile, fresh uint64) (f found) {
	if l.cmd == nil {
		l.cmd = child(l.t, "checker")
		in, err := l.cmd.StdinPipe()
		out, err2 := l.cmd.StdoutPipe()
		if err != nil || err2 != nil {
			return found{Err: fmt.Sprint(err, err2)}
		}
		l.in, l.out = in, bufio.NewReader(out)
		if err := l.cmd.Start(); err != nil {
			return found{Err: err.Error()}
		}
	}
	limit := lookLimit
	if p.noSync {
		limit = 2 * time.Second // where nothing is whole a hang is one more thing that is wrong
	}
	late := time.AfterFunc(limit, func() { _ = l.cmd.Process.Kill() })
	defer late.Stop()
	_, err := fmt.Fprintf(l.in, "%s %s %x\n", p.name, l.mnt, fresh)
	var line []byte
	if err == nil {
		line, err = l.out.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, &f)
	}
	if err != nil {
		l.stop()
		return found{Err: fmt.Sprintf("the process that opened the spool died or hung: %v", err)}
	}
	return f
}

func (l *lane) stop() {
	if l.cmd != nil {
		_ = l.in.Close()
		_ = l.cmd.Process.Kill()
		_ = l.cmd.Wait() // it was killed
		l.cmd = nil
	}
}

// look mounts a state, which replays the journal, and gives what is wrong with it.
func (l *lane) look(pt *point, img *memdisk.Image, fresh uint64) []string {
	l.disk.Insert(img)
	l.disk.Record()
	if err := l.disk.Mount(l.mnt, pt.p.mount); err != nil {
		return []string{err.Error()}
	}
	wrong := judge(pt.p, pt.facts, l.ask(pt.p, fresh))
	if err := memdisk.Unmount(l.mnt); err != nil { // a leaked map or file keeps it busy
		wrong = append(wrong, err.Error())
		l.stop()
		memdisk.Discard(l.mnt)
	}
	return wrong
}

func (l *lane) point(pt *point) []string {
	fresh := id(freshSession, 0, pt.n*16)
	wrong := l.look(pt, pt.img.Clone(), fresh)
	if !pt.again || len(wrong) > 0 {
		return wrong
	}
	log, _ := l.disk.Log()
	if len(log) == 0 {
		return nil
	}
	rng := rand.New(rand.NewPCG(pt.seed, 7))
	at := rng.IntN(len(log))
	// The start that was cut off reserves numbers of metrics, which are told as lost.
	again, facts := *pt, *pt.facts
	facts.closed, again.facts = false, &facts
	wrong = l.look(&again, memdisk.NewReplay(pt.img, log).At(at, rng), fresh+8)
	for i := range wrong {
		wrong[i] = fmt.Sprintf("lost again at operation %d of %d of the recovery: %s", at, len(log), wrong[i])
	}
	return wrong
}

// outcome counts over all points.
type outcome struct {
	points, bad, early atomic.Int64
}

// lookAt looks at n points of the lives and tells of each that is wrong.
func (s *site) lookAt(t *testing.T, lives []*life, n int, seed uint64, tell func(*point, []string)) *outcome {
	points := make(chan *point)
	o := &outcome{}
	var wg sync.WaitGroup
	for k := range lanes {
		l := s.lane(t, k)
		wg.Go(func() {
			defer l.stop()
			for pt := range points {
				wrong := l.point(pt)
				o.points.Add(1)
				if len(pt.facts.durable) == 0 {
					o.early.Add(1)
				}
				if len(wrong) > 0 {
					o.bad.Add(1)
					tell(pt, wrong)
				}
			}
		})
	}
	k := 0
	for li, l := range lives {
		rng := rand.New(rand.NewPCG(seed, uint64(li)))
		replay := memdisk.NewReplay(l.base, l.log)
		for _, at := range l.positions((n+len(lives)-1-li)/len(lives), rng) {
			pt := &point{n: k, p: l.p, at: at, img: replay.At(at, rng), notes: l.notes(at), again: k%4 == 0, seed: rng.Uint64()}
			var err error
			if pt.facts, err = gather(pt.notes); err != nil {
				t.Error(err)
				continue
			}
			points <- pt
			k++
		}
	}
	close(points)
	wg.Wait()
	return o
}
