// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"archive/tar"
	"context"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"fulmar/fleet/store"
)

const (
	magic    = "fulmar fleet backup 1\n"
	sumsName = "SHA256SUMS"      // the last entry of the tar
	config   = "config.yaml"     // the config file, beside the folder
	dataName = "data/"           // all else
	workDir  = "backup.tmp"      // copies of databases, in the data folder
	lockName = "backup.lock"     // one backup at a time
	ledger   = "ledger.db"       // copied first
	pictures = "pictures"        // copied last
	parts    = "pictures/parts/" // half sent: their boards send them again
	series   = "telemetry"       // and series+".damaged": made anew from the ledger
	incoming = "incoming"        // half uploaded: brought again
)

// Head is what can be read of a backup without a key.
type Head struct {
	V       int    `json:"v"`
	Made    int64  `json:"made"` // milliseconds since 1970, when it began
	Release string `json:"release"`
	// SealedTo is the id of the recovery key that opens it; "" of a plain one.
	SealedTo string `json:"sealed_to,omitempty"`
	// KeysElsewhere are references of keys that are not in it.
	KeysElsewhere []string `json:"keys_elsewhere,omitempty"`
	// Pictures tells whether they are in it.
	Pictures bool `json:"pictures"`
}

// Plan says what to write.
type Plan struct {
	Data     string // folder of the server, which may run
	Config   string // its config file; "": none
	Release  string
	Recovery []byte // PEM of the public recovery key; nil: the backup is not sealed
	Pictures bool
}

// Write writes a backup. Another one on the same folder is waited for.
func Write(ctx context.Context, w io.Writer, p Plan) (*Head, error) {
	if _, err := os.Stat(filepath.Join(p.Data, "registry.db")); err != nil {
		return nil, fmt.Errorf("back up %s: no fleet was ever served from it: %w", p.Data, err)
	}
	lock, err := os.OpenFile(filepath.Join(p.Data, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", p.Data, err)
	}
	defer lock.Close() //nolint:errcheck // it holds nothing
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("back up %s: %w", p.Data, err)
	}
	work := filepath.Join(p.Data, workDir)
	if err := errors.Join(os.RemoveAll(work), os.Mkdir(work, 0o700)); err != nil { // what a killed one left
		return nil, fmt.Errorf("back up %s: %w", p.Data, err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // the next one does it
	h := &Head{V: 1, Made: time.Now().UnixMilli(), Release: p.Release, Pictures: p.Pictures}
	if h.KeysElsewhere, err = elsewhere(p.Data); err != nil {
		return nil, fmt.Errorf("back up %s: %w", p.Data, err)
	}
	var key hpke.PublicKey
	if p.Recovery != nil {
		if key, err = parsePublic(p.Recovery); err != nil {
			return nil, err
		}
		h.SealedTo = keyID(key)
	}
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	head := append([]byte(magic), append(line, '\n')...)
	if _, err := w.Write(head); err != nil {
		return nil, err
	}
	body := io.WriteCloser(plain{w})
	if key != nil {
		if body, err = newSealer(w, key, head); err != nil {
			return nil, err
		}
	}
	a := &archive{tar: tar.NewWriter(body), sums: map[string]string{}}
	if err := a.all(ctx, p, work); err != nil {
		return nil, fmt.Errorf("back up %s: %w", p.Data, err)
	}
	return h, errors.Join(a.tar.Close(), body.Close())
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// elsewhere lists the references of keys that a copy of the folder does not hold.
func elsewhere(data string) (refs []string, err error) {
	for _, holder := range [][2]string{{"ca", "ca.ref"}, {"audit", "audit.ref"}, {"trust", "*.ref"}} {
		err = filepath.WalkDir(filepath.Join(data, holder[0]), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if its, err := filepath.Match(holder[1], d.Name()); err != nil || !its {
				return err
			}
			b, err := os.ReadFile(path)
			if err == nil {
				refs = append(refs, strings.TrimSpace(string(b)))
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return refs, nil
}

// archive is the tar and what was put into it.
type archive struct {
	tar  *tar.Writer
	sums map[string]string // SHA-256 in hex, by name
}

func (a *archive) all(ctx context.Context, p Plan, work string) error {
	databases, err := filepath.Glob(filepath.Join(p.Data, "*.db"))
	if err != nil {
		return err
	}
	slices.SortFunc(databases, func(x, y string) int { // the ledger first
		if i, j := filepath.Base(x) == ledger, filepath.Base(y) == ledger; i != j {
			if i {
				return -1
			}
			return 1
		}
		return strings.Compare(x, y)
	})
	for _, db := range databases {
		name := filepath.Base(db)
		copied := filepath.Join(work, name)
		if err := store.CopyFile(ctx, db, copied); err != nil {
			return err
		}
		if err := errors.Join(a.file(copied, dataName+name), os.Remove(copied)); err != nil {
			return err
		}
	}
	if p.Config != "" {
		if err := a.file(p.Config, config); err != nil {
			return err
		}
	}
	if err := a.folder(ctx, p.Data, func(rel string) bool { return !strings.HasPrefix(rel, pictures+"/") }); err != nil {
		return err
	}
	if p.Pictures {
		if err := a.folder(ctx, p.Data, func(rel string) bool {
			return strings.HasPrefix(rel, pictures+"/") && !strings.HasPrefix(rel, parts)
		}); err != nil {
			return err
		}
	}
	sums, err := json.Marshal(a.sums)
	if err != nil {
		return err
	}
	if err := a.tar.WriteHeader(&tar.Header{Name: sumsName, Mode: 0o600, Size: int64(len(sums)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = a.tar.Write(sums)
	return err
}

// folder adds the files of the data folder that want says, but for databases and what
// belongs to this machine. A file that goes while it is looked at (an old picture) is
// left out.
func (a *archive) folder(ctx context.Context, data string, want func(rel string) bool) error {
	return filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(data, path)
		if rerr != nil {
			return rerr
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case d.IsDir() && (rel == workDir || rel == series || rel == incoming || rel == series+".damaged"):
			return fs.SkipDir
		case !d.Type().IsRegular() || rel == "lock" || rel == lockName || strings.HasPrefix(filepath.Base(rel), ".") ||
			!strings.Contains(rel, "/") && (strings.HasSuffix(rel, ".db") || strings.Contains(rel, ".db-")):
			return nil
		case !want(filepath.ToSlash(rel)):
			return nil
		}
		err = a.file(path, dataName+filepath.ToSlash(rel))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

func (a *archive) file(path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: st.Size(), ModTime: st.ModTime(), Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(a.tar, sum), io.LimitReader(f, st.Size()))
	if err == nil && n != st.Size() {
		err = fmt.Errorf("%s became shorter while it was read; try again", path)
	}
	if err != nil {
		return err
	}
	a.sums[name] = hex.EncodeToString(sum.Sum(nil))
	return nil
}
