// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/internal/atomicfile"
	"fulmar/internal/merkle"
	"fulmar/ota/release"
)

const (
	// syncEvery is how many bytes a power cut may cost.
	syncEvery = 1 << 20
	// catchUp is how many pieces are hashed behind one that closes a gap: the rest follows
	// with the next ones.
	catchUp = 8
	// readBatch is how many leaves are read at a time.
	readBatch = 2048
)

// errDamaged: what is on the disk is not what was written.
var errDamaged = errors.New("the pieces on the disk are not those that came")

// Job is an object on its way. Its methods may be called from several goroutines.
type Job struct {
	release.Object
	f        *Fetcher
	part     *os.File
	leaves   *os.File
	progress func(have, all int64)
	over     chan struct{} // closed when it is whole, or its disk failed

	mu      sync.Mutex
	trusted bool // leaves are all there and proven
	have    bits
	claimed bits
	n       int   // pieces that are there
	bytes   int64 // of them
	dirty   int   // bytes since they were synced
	whole   hash.Hash
	hashed  int // pieces that are in whole
	moved   time.Time
	err     error
}

// bits is a set of pieces.
type bits []uint64

func (b bits) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bits) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bits) clear(i int)    { b[i/64] &^= 1 << (i % 64) }

// open begins a job, or goes on with one. Room for all of it is taken first.
func (f *Fetcher) open(ctx context.Context, o release.Object) (_ *Job, err error) {
	n := (o.Pieces() + 63) / 64
	j := &Job{Object: o, f: f, over: make(chan struct{}), have: make(bits, n), claimed: make(bits, n), whole: sha256.New(), moved: time.Now()}
	if j.part, err = os.OpenFile(f.path(o.Tree)+partSuffix, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.close()
		}
	}()
	if err := f.reserve(j.part, o.Size); err != nil {
		return nil, err
	}
	if j.leaves, err = os.OpenFile(f.path(o.Tree)+LeavesSuffix, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := atomicfile.SyncDir(f.cfg.Dir); err != nil {
		return nil, err
	}
	return j, j.resume(ctx)
}

// reserve takes the room of an object on the disk. What it took is given back where that
// is not all.
func (f *Fetcher) reserve(part *os.File, size int64) error {
	var st unix.Stat_t
	var disk unix.Statfs_t
	if err := errors.Join(unix.Fstat(int(part.Fd()), &st), unix.Fstatfs(int(part.Fd()), &disk)); err != nil {
		return err
	}
	has := st.Blocks * 512
	if st.Size != size && st.Size != 0 { // of a reservation that was cut off, or of somebody else
		if err := part.Truncate(0); err != nil {
			return err
		}
		has = 0
	}
	full := func() error {
		return errors.Join(&NoSpaceError{Dir: f.cfg.Dir, Need: size + f.cfg.Spare, Free: int64(disk.Bavail)*disk.Bsize + has}, os.Remove(part.Name()))
	}
	if has >= size && st.Size == size {
		return nil
	}
	if int64(disk.Bavail)*disk.Bsize+has < size+f.cfg.Spare {
		return full()
	}
	err := unix.Fallocate(int(part.Fd()), 0, 0, size)
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		return full()
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS): // a file system that cannot: it was looked at
		return part.Truncate(size)
	}
	return err
}

// resume believes the pieces that have the hash which was noted beside them.
func (j *Job) resume(ctx context.Context) error {
	if err := j.leaves.Truncate(int64(j.Pieces()) * merkle.Size); err != nil { // zeros are no hash
		return err
	}
	var roll merkle.Roll
	buf := make([]byte, release.Piece)
	for at := 0; at < j.Pieces(); at += readBatch {
		leaves := make([]byte, min(readBatch, j.Pieces()-at)*merkle.Size)
		if _, err := j.leaves.ReadAt(leaves, int64(at)*merkle.Size); err != nil {
			return err
		}
		for i := at; len(leaves) > 0; i, leaves = i+1, leaves[merkle.Size:] {
			leaf := merkle.Hash(leaves)
			roll.Add(leaf)
			if leaf == (merkle.Hash{}) {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			data := buf[:j.PieceSize(i)]
			if _, err := j.part.ReadAt(data, int64(i)*release.Piece); err != nil {
				return err
			}
			if merkle.Leaf(data) == leaf {
				j.note(i, data)
			}
		}
	}
	j.trusted = roll.Root() == merkle.Hash(j.Tree)
	j.check()
	return nil
}

// note counts a piece that is written. The caller holds the mutex, or is alone.
func (j *Job) note(i int, data []byte) {
	j.have.set(i)
	j.n++
	j.bytes += int64(len(data))
	if i == j.hashed {
		j.whole.Write(data)
		j.hashed++
	}
}

// check closes over where all is there.
func (j *Job) check() {
	if j.n == j.Pieces() {
		j.end()
	}
}

func (j *Job) end() {
	select {
	case <-j.over:
	default:
		close(j.over)
	}
}

// Have tells how many bytes are there, of how many.
func (j *Job) Have() (have, all int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.bytes, j.Size
}

// Over is closed when nothing more is to be brought.
func (j *Job) Over() <-chan struct{} { return j.over }

func (j *Job) done() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.n == j.Pieces()
}

func (j *Job) failed() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// last is when a piece came the last time.
func (j *Job) last() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.moved
}

// Allow waits until so many bytes may be brought, by the board's own rate.
func (j *Job) Allow(ctx context.Context, n int) error { return j.f.rate.Sleep(ctx, n) }

// Claim gives the first missing pieces that nobody is about to bring, at most so many, and
// notes that the caller is; run: only such as follow each other. What is claimed and does
// not come is to be given up by [Job.Yield].
func (j *Job) Claim(most int, run bool) (out []int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for w := range j.have {
		if j.have[w]|j.claimed[w] == ^uint64(0) {
			continue
		}
		for i := w * 64; i < min((w+1)*64, j.Pieces()); i++ {
			if j.have.has(i) || j.claimed.has(i) {
				continue
			}
			if len(out) == most || run && len(out) > 0 && out[len(out)-1] != i-1 {
				return out
			}
			out = append(out, i)
			j.claimed.set(i)
		}
	}
	return out
}

// Yield gives up claims.
func (j *Job) Yield(pieces ...int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, i := range pieces {
		j.claimed.clear(i)
	}
}

// Missing gives the pieces that are missing and that nobody else is about to bring, as a
// bitmap from the first of own on; own are the caller's claims, in their order.
func (j *Job) Missing(own []int, most int) (from int, bitmap []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	from = own[0]
	bitmap = make([]byte, min((j.Pieces()-from+7)/8, most))
	for i := from; i < min(j.Pieces(), from+len(bitmap)*8); i++ {
		if !j.have.has(i) && !j.claimed.has(i) {
			bitmap[(i-from)/8] |= 1 << ((i - from) % 8)
		}
	}
	for _, i := range own {
		if at := i - from; at/8 < len(bitmap) {
			bitmap[at/8] |= 1 << (at % 8)
		}
	}
	return from, bitmap
}

// Put takes piece i with its proof; fresh is false for one that is there already. [ErrLied]
// for what is none.
func (j *Job) Put(i int, data, path []byte) (fresh bool, err error) {
	if i < 0 || i >= j.Pieces() || len(data) != j.PieceSize(i) {
		return false, j.lied(i)
	}
	if j.holds(i) {
		return false, nil // not looked at: it costs nothing to be sent again and again
	}
	if !j.Proves(i, data, path) {
		return false, j.lied(i)
	}
	return j.write(i, data, merkle.Leaf(data))
}

// PutKnown takes piece i where the leaves are known, see [Job.Learn].
func (j *Job) PutKnown(i int, data []byte) (fresh bool, err error) {
	if i < 0 || i >= j.Pieces() || len(data) != j.PieceSize(i) {
		return false, j.lied(i)
	}
	if j.holds(i) {
		return false, nil
	}
	leaf := merkle.Leaf(data)
	known, err := j.leaf(i)
	if err != nil {
		return false, j.fail(err)
	}
	if leaf != known {
		return false, j.lied(i)
	}
	return j.write(i, data, leaf)
}

// leaf gives the leaf of a piece, zeros where it is not known.
func (j *Job) leaf(i int) (leaf merkle.Hash, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.trusted {
		_, err = j.leaves.ReadAt(leaf[:], int64(i)*merkle.Size)
	}
	return leaf, err
}

// holds tells whether a piece is there, and counts it as one that came twice if so.
func (j *Job) holds(i int) bool {
	j.mu.Lock()
	has := j.have.has(i)
	j.mu.Unlock()
	if has {
		j.f.count(func(s *Stats) { s.Duplicates++ })
	}
	return has
}

func (j *Job) lied(i int) error {
	j.f.count(func(s *Stats) { s.Wrong++ })
	return fmt.Errorf("piece %d of object %s: %w", i, j.Tree, ErrLied)
}

func (f *Fetcher) count(change func(*Stats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.stats)
}

// write writes a piece that is proven.
func (j *Job) write(i int, data []byte, leaf merkle.Hash) (fresh bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.have.has(i) || j.err != nil {
		return false, j.err
	}
	_, err = j.part.WriteAt(data, int64(i)*release.Piece)
	if err == nil && !j.trusted {
		_, err = j.leaves.WriteAt(leaf[:], int64(i)*merkle.Size)
	}
	if err != nil {
		return false, j.failLocked(err)
	}
	j.note(i, data)
	j.moved = time.Now()
	if j.dirty += len(data); j.dirty >= syncEvery {
		if err := j.syncLocked(); err != nil {
			return true, j.failLocked(err)
		}
	}
	if err := j.follow(catchUp); err != nil {
		return true, j.failLocked(err)
	}
	j.f.count(func(s *Stats) { s.Pieces++ })
	if j.progress != nil {
		j.progress(j.bytes, j.Size)
	}
	j.check()
	return true, nil
}

// follow hashes pieces that are there, in their order. The caller holds the mutex.
func (j *Job) follow(most int) error {
	var buf []byte
	for ; most > 0 && j.hashed < j.Pieces() && j.have.has(j.hashed); most-- {
		if buf == nil {
			buf = make([]byte, release.Piece)
		}
		data := buf[:j.PieceSize(j.hashed)]
		if _, err := j.part.ReadAt(data, int64(j.hashed)*release.Piece); err != nil {
			return err
		}
		j.whole.Write(data)
		j.hashed++
	}
	return nil
}

func (j *Job) fail(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failLocked(err)
}

// failLocked ends the job: its disk does not take it.
func (j *Job) failLocked(err error) error {
	if j.err == nil {
		j.err = fmt.Errorf("disk: %w", err)
		j.end()
	}
	return j.err
}

func (j *Job) sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.syncLocked()
}

func (j *Job) syncLocked() error {
	j.dirty = 0
	return errors.Join(unix.Fdatasync(int(j.part.Fd())), unix.Fdatasync(int(j.leaves.Fd())))
}

// Known tells whether all leaves are known.
func (j *Job) Known() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.trusted
}

// Learn reads the leaves of the object one after another, and believes them where they
// give its tree. [ErrLied] where they do not.
func (j *Job) Learn(leaves io.Reader) error {
	name := j.f.path(j.Tree) + LeavesSuffix
	tmp, err := os.OpenFile(name+partSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return j.fail(err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // it is gone where all went well
	keep := false
	defer func() {
		if !keep {
			_ = tmp.Close()
		}
	}()
	var roll merkle.Roll
	buf := make([]byte, readBatch*merkle.Size)
	for left := j.Pieces() * merkle.Size; left > 0; {
		b := buf[:min(left, len(buf))]
		if _, err := io.ReadFull(leaves, b); err != nil {
			return fmt.Errorf("list of leaves: %w", err)
		}
		for at := 0; at < len(b); at += merkle.Size {
			roll.Add(merkle.Hash(b[at:]))
		}
		if _, err := tmp.Write(b); err != nil {
			return j.fail(err)
		}
		left -= len(b)
	}
	if roll.Root() != merkle.Hash(j.Tree) {
		return fmt.Errorf("list of leaves of object %s: %w", j.Tree, ErrLied)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.trusted {
		return nil
	}
	if err := errors.Join(unix.Fdatasync(int(tmp.Fd())), os.Rename(tmp.Name(), name), atomicfile.SyncDir(j.f.cfg.Dir)); err != nil {
		return j.failLocked(err)
	}
	_ = j.leaves.Close()
	j.leaves, j.trusted, keep = tmp, true, true
	return nil
}

// finish checks the whole.
func (j *Job) finish() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.follow(j.Pieces()); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	if release.Hash(j.whole.Sum(nil)) == j.SHA256 {
		return j.syncLocked()
	}
	// The pieces were proven when they came: is the manifest wrong, or the disk?
	if _, err := j.part.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	if o, _, err := release.Describe(j.part); err != nil {
		return fmt.Errorf("disk: %w", err)
	} else if o.Tree != j.Tree {
		return errDamaged
	}
	return fmt.Errorf("%w: object %s, SHA-256 %s", ErrHash, j.Tree, j.SHA256)
}

func (j *Job) close() {
	_ = j.part.Close()
	if j.leaves != nil {
		_ = j.leaves.Close()
	}
}
