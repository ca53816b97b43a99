// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fulmar/internal/debversion"
	"fulmar/internal/disk"
)

const (
	slotsDir    = "slots"
	slotFile    = "slot.json"
	maxSlotFile = 64 << 10  // bytes of slot.json; 16 files take 3 KiB
	maxFiles    = 16        // in a slot; we ship three
	maxFile     = 256 << 20 // bytes of a file; ONNX Runtime has 22 MB
	maxName     = 64        // bytes of a version or of a file's name
	hashInID    = 12        // hex digits, 48 bits: a name, checked by the whole hashes beside it
)

// MaxSlots is how many folders of slots are looked at; more than four is somebody's accident.
const MaxSlots = 64

// LaunchEnv is how the launcher speaks to the program that it becomes: its process id, a
// blank, and, where it could not start the slot that was to run, why.
const LaunchEnv = "FULMAR_LAUNCH"

// Agent is the program that a slot cannot do without.
const Agent = "fulmard"

// Origins of a slot.
const (
	FromDeb = "deb"
	FromOTA = "ota"
)

// Slot is one version of the programs, as its slot.json has it.
type Slot struct {
	ID      string `json:"-"`
	V       int    `json:"v"`
	Version string `json:"version"`
	Origin  string `json:"origin"` // FromDeb or FromOTA
	// Parts are the versions of what it was put together of, agent and worker, where they
	// are not Version.
	Parts map[string]string `json:"parts,omitempty"`
	Files map[string]File   `json:"files"`
}

// File is a program or library of a slot.
type File struct {
	SHA256 string `json:"sha256"` // hex
	Size   int64  `json:"size"`   // bytes
}

// Store is a folder of slots. Processes and goroutines may use it at the same time:
// changes take a lock in the folder.
type Store struct {
	dir  string
	disk disk.Disk
}

// Open gives the store in a folder, /var/lib/fulmar on a board. It touches nothing.
func Open(dir string) *Store { return OpenOn(dir, disk.OS{}) }

// OpenOn is [Open] on another disk.
func OpenOn(dir string, d disk.Disk) *Store { return &Store{dir: dir, disk: d} }

// Dir is the store's folder.
func (s *Store) Dir() string { return s.dir }

// Path is where a file of a slot is.
func (s *Store) Path(id, name string) string { return filepath.Join(s.dir, slotsDir, id, name) }

// Own tells whether this process may change the folder: it runs as its owner. Root is
// not: what root writes there the owner cannot replace.
func (s *Store) Own() error {
	fi, err := os.Stat(s.dir)
	if err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	if uid, me := ownerOf(fi), os.Geteuid(); uid != me {
		return fmt.Errorf("%s belongs to user %d and this is user %d: run it as its owner (runuser -u fulmar -- fulmar-launch ...)", s.dir, uid, me)
	}
	return nil
}

// makeID names a slot by its version and content.
func makeID(version string, files map[string]File) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%s %s\n", name, files[name].SHA256)
	}
	return strings.NewReplacer(":", "_").Replace(version) + "-" + hex.EncodeToString(h.Sum(nil))[:hashInID]
}

func validID(id string) bool {
	version, hash, ok := cutLast(id, "-")
	return ok && plain(version, ".+~-_") && len(hash) == hashInID && strings.Trim(hash, "0123456789abcdef") == ""
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// plain: a letter or digit, then those and extra, at most maxName bytes.
func plain(s, extra string) bool {
	for i, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || strings.IndexByte(extra, c) < 0) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// decodeSlot reads a slot.json that is in a folder called id.
func decodeSlot(id string, b []byte) (Slot, error) {
	var sl Slot
	if err := json.Unmarshal(b, &sl); err != nil {
		return Slot{}, fmt.Errorf("slot %s: read slot.json: %w", id, err)
	}
	sl.ID = id
	if err := sl.valid(); err != nil {
		return Slot{}, fmt.Errorf("slot %s: slot.json: %w", id, err)
	}
	if want := makeID(sl.Version, sl.Files); want != id {
		return Slot{}, fmt.Errorf("slot %s: slot.json is that of %s", id, want)
	}
	return sl, nil
}

func (sl *Slot) valid() error {
	if sl.V != 1 {
		return fmt.Errorf("version %d of the format, this program knows 1", sl.V)
	}
	if !plain(sl.Version, ".+~:-") {
		return fmt.Errorf("%.80q is no version", sl.Version)
	}
	if sl.Origin != FromDeb && sl.Origin != FromOTA {
		return fmt.Errorf("origin %.20q is neither %s nor %s", sl.Origin, FromDeb, FromOTA)
	}
	if _, ok := sl.Files[Agent]; !ok || len(sl.Files) > maxFiles {
		return fmt.Errorf("%d files, wants %s and at most %d", len(sl.Files), Agent, maxFiles)
	}
	if len(sl.Parts) > maxParts {
		return fmt.Errorf("versions of %d parts, at most %d", len(sl.Parts), maxParts)
	}
	for name, f := range sl.Files {
		if err := validFile(name, f.Size); err != nil {
			return err
		}
		if sum, err := hex.DecodeString(f.SHA256); err != nil || len(sum) != sha256.Size {
			return fmt.Errorf("%s: %.80q is no SHA-256", name, f.SHA256)
		}
	}
	return nil
}

func validFile(name string, size int64) error {
	if !plain(name, ".+-_") || name == slotFile {
		return fmt.Errorf("%.80q is no name of a file in a slot", name)
	}
	if size <= 0 || size > maxFile {
		return fmt.Errorf("%s has %d bytes, wants 1 to %d", name, size, maxFile)
	}
	return nil
}

// Get reads a slot and looks whether its files are there in their size. What they
// contain is [Store.Verify]'s.
func (s *Store) Get(id string) (Slot, error) {
	if !validID(id) {
		return Slot{}, fmt.Errorf("%.80q is no slot", id)
	}
	b, err := readAtMost(s.Path(id, slotFile), maxSlotFile)
	if err != nil {
		return Slot{}, fmt.Errorf("slot %s: %w", id, err)
	}
	sl, err := decodeSlot(id, b)
	if err != nil {
		return Slot{}, err
	}
	for name, f := range sl.Files {
		fi, err := os.Lstat(s.Path(id, name))
		if err != nil {
			return Slot{}, fmt.Errorf("slot %s: %w", id, err)
		}
		if !fi.Mode().IsRegular() || fi.Size() != f.Size {
			return Slot{}, fmt.Errorf("slot %s: %s is no file of %d bytes", id, name, f.Size)
		}
	}
	return sl, nil
}

// Verify reads the named files of a slot, all where none is named, and compares their
// SHA-256.
func (s *Store) Verify(id string, names ...string) error {
	sl, err := s.Get(id)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(sl.Files))
	}
	for _, name := range names {
		f, ok := sl.Files[name]
		if !ok {
			return fmt.Errorf("slot %s has no %s", id, name)
		}
		got, err := hashFile(s.Path(id, name))
		if err != nil {
			return fmt.Errorf("slot %s: %w", id, err)
		}
		if got != f {
			return fmt.Errorf("slot %s: %s has changed on the disk", id, name)
		}
	}
	return nil
}

// CompareVersions orders versions as Debian does: below 0 if a is older than b, 0 if
// neither is, above 0 if a is newer.
func CompareVersions(a, b string) int { return debversion.Compare(a, b) }

// List gives the slots that are whole by [Store.Get], the newest version first.
func (s *Store) List() ([]Slot, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var out []Slot
	for _, n := range names {
		if sl, err := s.Get(n); err == nil {
			out = append(out, sl)
		}
	}
	slices.SortFunc(out, func(a, b Slot) int {
		if c := CompareVersions(b.Version, a.Version); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// names are the folders of slots, whole or not.
func (s *Store) names() ([]string, error) {
	d, err := os.Open(filepath.Join(s.dir, slotsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list slots: %w", err)
	}
	defer d.Close()
	all, err := d.Readdirnames(MaxSlots)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list slots: %w", err)
	}
	return slices.DeleteFunc(all, func(n string) bool { return !validID(n) }), nil
}

func hashFile(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, maxFile+1))
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", path, err)
	}
	return File{hex.EncodeToString(h.Sum(nil)), n}, nil
}

// readAtMost reads a small file; one that is longer gives n+1 bytes, which no parser
// of ours takes.
func readAtMost(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n+1))
}
