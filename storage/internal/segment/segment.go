// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package segment is one file of the spool: a small bbolt database that is
// appended to until it is full, read in order and then unlinked as a whole.
//
// bbolt has no page checksums and panics, or faults in its memory map, on a
// damaged or truncated file. So each frame carries its own CRC, every call here
// runs with faults turned into panics and panics into [ErrDamaged], and bbolt is
// used only in the ways in which that works: the freelist is always synced, since
// rebuilding it runs in a goroutine of bbolt's own where nothing recovers; a file
// is written only by the handle that made it, since a wild page number makes bbolt
// free billions of pages; and the branch pages are looked over before bbolt follows
// them, since a cycle would use up the stack. (Left open: a leaf replaced by a branch
// page, since looking at each leaf would cost a read of the whole file. The look from
// another process, after a start that ended badly, finds it.)
//
// A DB is not safe for concurrent use.
package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"fulmar/internal/atomicfile"
	"fulmar/storage/internal/meta"
	"fulmar/storage/vault"
)

const (
	// pageSize is fixed: with the system's page size a 64 KiB kernel would
	// write 16 times as much for each commit.
	pageSize = 4096
	// fillPercent suits keys that only rise; the default of half leaves half of
	// each page empty for ever, 0.95 a pack of each.
	fillPercent = 1.0
	// lockTimeout bounds the wait for the file's lock; the spool's own lock is
	// taken first, so only a leaked handle could hold it.
	lockTimeout = time.Second
	// trimBytes is how much is written or read before the pages of the memory
	// map are given back, so that a 16 MiB file does not end up resident.
	trimBytes = 256 << 10
	// headroom is what MaxSize allows above twice the segment's size: one batch
	// and the pages around it.
	headroom = 8 << 20
	// tmpSuffix ends the name of a segment that is being made.
	tmpSuffix = ".tmp"
)

// ErrDamaged says that the file itself is broken: reading or writing it again
// will not help. Other errors are of the disk and may pass.
var ErrDamaged = errors.New("segment is damaged")

var (
	// ErrKeyLost says that the segment is encrypted with a key that is not open here.
	// The file is sound: the recovery key may still read it.
	ErrKeyLost = vault.ErrKeyLost
	// ErrNewer says that a newer version of the program wrote the segment.
	ErrNewer = meta.ErrNewer
)

var (
	bucketHeader  = []byte("h")
	bucketRecords = []byte("q")
	keyHeader     = []byte("h")
)

// Record is one record on its way in or out.
type Record struct {
	Seq     uint64
	Wall    int64 // ms since 1970, at Append
	Payload []byte
}

// Options sets up a segment file.
type Options struct {
	MaxBytes int64       // size at which the owner rolls over
	NoSync   bool        // no fsync at all: only for simulations
	Keys     *vault.Keys // new segments are encrypted with the newest; nil: they are plain
	Unkeyed  bool        // open what is encrypted without its key, too, as OpenCopy does: see DB.Locked
}

// DB is one open segment file.
type DB struct {
	Header Header
	Locked error // of OpenCopy, and of Open with Unkeyed: why no record can be read, though the file is sound
	Unread int64 // of OpenCopy: bytes that the disk did not give

	db      *bolt.DB
	copied  bool     // file is a copy in memory
	file    *os.File // bbolt's, kept to release the lock where bbolt cannot be closed
	broken  bool     // a panic came out of bbolt: it may hold its own locks for ever
	size    int64    // bytes in use, as of the last transaction
	mapped  int64    // bytes that are certainly inside the memory map
	touched int64    // bytes gone through the memory map since the last trim
	buf     []byte   // frames of the batch at hand, reused
	plain   plain
	crypt   *crypt // nil: the segment is plain
}

// guard runs fn, which touches the memory map, and turns its panics and faults
// into ErrDamaged.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return fn()
}

// open opens a bbolt file; from, if it is not nil, takes the place of the file at
// path and is closed with the DB.
func open(path string, o Options, readOnly bool, from *os.File) (*DB, error) {
	d := &DB{}
	opt := &bolt.Options{
		Timeout:      lockTimeout,
		FreelistType: bolt.FreelistMapType,
		ReadOnly:     readOnly,
		PageSize:     pageSize,
		NoSync:       o.NoSync,
		NoGrowSync:   o.NoSync,
		NoStatistics: true,
		OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
			if d.file = from; from != nil {
				d.copied = true
				return from, nil
			}
			f, err := os.OpenFile(name, flag|unix.O_NOFOLLOW, perm)
			d.file = f
			return f, err
		},
	}
	if !readOnly {
		// The map never has to grow while the file keeps to its size.
		opt.InitialMmapSize = int(2 * o.MaxBytes)
		opt.MaxSize = int(2*o.MaxBytes + headroom)
	}
	err := guard(func() (err error) {
		d.db, err = bolt.Open(path, 0o600, opt)
		if err != nil {
			return err
		}
		// Each growth costs an fsync, so a file gets its full length at once. It is
		// sparse: what is not written takes no disk.
		d.db.AllocSize = int(max(o.MaxBytes, pageSize))
		fi, err := d.file.Stat()
		if err == nil {
			d.mapped = max(fi.Size(), int64(opt.InitialMmapSize))
		}
		return err
	})
	switch {
	case err == nil:
		return d, nil
	case errors.Is(err, ErrDamaged):
		d.abandon()
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil, fmt.Errorf("open segment %s: %w", path, err)
}

// abandon releases the file's lock without touching bbolt, whose own locks may
// be held for ever after a panic. The memory map stays until the process ends and
// keeps the lock alive beyond the close, so it is given up by name.
func (d *DB) abandon() {
	if d.file != nil {
		if d.copied {
			_ = d.file.Truncate(0) // or the memory map would keep all of it
		}
		_ = unix.Flock(int(d.file.Fd()), unix.LOCK_UN)
		_ = d.file.Close() // nothing to be done about it, and nothing unsaved
	}
}

// Create makes the segment's file. It has its final name only when it is whole
// and on disk: a torn bbolt file cannot be told from a damaged one.
func Create(path string, h Header, o Options) (_ *DB, err error) {
	tmp := path + tmpSuffix
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	hd := head{Header: h}
	c, err := newCrypt(&hd, o.Keys)
	if err != nil {
		return nil, fmt.Errorf("create segment %s: %w", path, err)
	}
	d, err := open(tmp, o, false, nil)
	if err != nil {
		_ = os.Remove(tmp) // what is left of it is removed at the next start at the latest
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = d.Close()
			_ = os.Remove(tmp)
			err = fmt.Errorf("create segment %s: %w", path, err)
		}
	}()
	d.Header, d.crypt = hd.Header, c
	err = d.update(func(tx *bolt.Tx) error {
		hb, err := tx.CreateBucket(bucketHeader)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket(bucketRecords); err != nil {
			return err
		}
		return hb.Put(keyHeader, hd.encode())
	})
	if err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, err
	}
	if o.NoSync {
		return d, nil
	}
	return d, atomicfile.SyncDir(filepath.Dir(path))
}

// Open opens a segment that is there, only to read it.
func Open(path string, o Options) (*DB, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	// bbolt begins a file with four pages. It would take an empty one for a new one.
	if !fi.Mode().IsRegular() || fi.Size() < 4*pageSize {
		return nil, fmt.Errorf("open segment %s: %w: a file of %d bytes or no plain file", path, ErrDamaged, fi.Size())
	}
	d, err := open(path, o, true, nil)
	if err != nil {
		return nil, err
	}
	return d.check(path, o, o.Unkeyed)
}

// check reads the header of a file that was opened to be read, and makes sure that
// bbolt may follow its pages. locked: a segment whose key is lost may be opened.
func (d *DB) check(path string, o Options, locked bool) (*DB, error) {
	err := d.checkRoot() // before bbolt follows it
	if err == nil {
		err = d.view(func(tx *bolt.Tx) error {
			hb := tx.Bucket(bucketHeader)
			if hb == nil || tx.Bucket(bucketRecords) == nil {
				return fmt.Errorf("%w: a bucket is missing", ErrDamaged)
			}
			h, err := decodeHeader(hb.Get(keyHeader))
			if errors.Is(err, ErrNewer) {
				return err
			} else if err != nil {
				return fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			d.Header = h.Header
			d.crypt, err = openCrypt(&h, o.Keys)
			if locked && errors.Is(err, ErrKeyLost) {
				d.Locked = err
			} else if err != nil {
				return err
			}
			return d.checkBranches(uint64(tx.Bucket(bucketRecords).Root()))
		})
	}
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("open segment %s: %w", path, err)
	}
	return d, nil
}

func (d *DB) update(fn func(*bolt.Tx) error) error {
	err := guard(func() error {
		if err := d.db.Update(fn); err != nil {
			return err
		}
		return d.db.View(func(tx *bolt.Tx) error { // a transaction has no size after its commit
			d.size = tx.Size()
			return nil
		})
	})
	d.note(err)
	return err
}

func (d *DB) view(fn func(*bolt.Tx) error) error {
	err := guard(func() error {
		return d.db.View(func(tx *bolt.Tx) error {
			d.size = tx.Size()
			return fn(tx)
		})
	})
	d.note(err)
	return err
}

func (d *DB) note(err error) {
	if errors.Is(err, ErrDamaged) {
		d.broken = true
	}
}

// Append writes the records, rising in seq, in one transaction; when it returns
// nil they are on disk. After any error the DB should be closed and opened anew.
func (d *DB) Append(recs []Record) error {
	n := 0
	for _, r := range recs { // as if each had a pack of its own
		n += cryptOverhead + packOverhead + bodyHead + recordOverhead + len(r.Payload)
	}
	if cap(d.buf) < n {
		d.buf = make([]byte, 0, n) // no growth below: bbolt holds on to the parts until the commit
	}
	buf := d.buf[:0]
	err := d.update(func(tx *bolt.Tx) (err error) {
		q := tx.Bucket(bucketRecords)
		if q == nil {
			return fmt.Errorf("%w: no records bucket", ErrDamaged)
		}
		q.FillPercent = fillPercent
		var key [8]byte
		for left := recs; len(left) > 0; {
			pack := left[:packLen(left)]
			left = left[len(pack):]
			at := len(buf)
			if d.crypt == nil {
				buf = d.plain.append(buf, d.Header.Epoch, pack)
			} else if buf, err = d.crypt.append(buf, pack); err != nil {
				return err
			}
			binary.BigEndian.PutUint64(key[:], pack[0].Seq)
			if err := q.Put(key[:], buf[at:]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("append %d records: %w", len(recs), err)
	}
	d.trim(int64(len(buf)) + int64(len(recs))*16)
	return nil
}

// Size is the number of bytes in use in the file, as of the last call.
func (d *DB) Size() int64 { return d.size }

// trim gives the pages of the memory map back to the page cache once n more
// bytes add up to trimBytes. They come back on the next touch; until then they
// do not count as resident. It must never reach past the map: behind it may lie
// the heap, so a size that a damaged file claims is not believed.
func (d *DB) trim(n int64) {
	if d.touched += n; d.touched < trimBytes || d.broken {
		return
	}
	d.touched = 0
	_ = guard(func() error {
		// Only advice: an error changes nothing but the count of resident pages.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, d.db.Info().Data, uintptr(min(d.size, d.mapped)), unix.MADV_DONTNEED)
		return nil
	})
}

// Close closes the file. After damage bbolt may never give up its locks, so then
// only the file is closed.
func (d *DB) Close() error {
	if d.broken {
		d.abandon()
		return nil
	}
	if err := guard(d.db.Close); err != nil {
		return fmt.Errorf("close segment: %w", err)
	}
	return nil
}
