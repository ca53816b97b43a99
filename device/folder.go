// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"fulmar/schema"
)

// Reprobe is how often folders of sysfs are looked at again for nodes that came
// late or went: a GPU's devfreq node appears seconds after boot, USB adapters any
// time.
const Reprobe = time.Minute

// Probe tells when a folder is due to be looked at again: at first, and each
// [Reprobe]. The zero Probe is due.
type Probe struct{ last time.Time }

// Due tells so, and counts from now where it is.
func (p *Probe) Due() bool {
	now := time.Now()
	if !p.last.IsZero() && now.Sub(p.last) < Reprobe {
		return false
	}
	p.last = now
	return true
}

// Attribute is one sysfs attribute that is one series. Scale takes the file's
// whole number to the unit of the series.
type Attribute struct {
	Series string
	File   *File
	Scale  float64
}

// Read appends the attribute's reading.
func (a *Attribute) Read(dst []Reading) []Reading {
	v, q := a.File.Float(a.Scale)
	return Append(dst, a.Series, v, q)
}

// Adopt gives fresh the open files of old where path and series are the same, and
// closes the rest of old: looking at a folder again opens nothing anew.
func Adopt(old, fresh []Attribute) {
	for i := range old {
		k := slices.IndexFunc(fresh, func(a Attribute) bool {
			return a.Series == old[i].Series && a.File.path == old[i].File.path
		})
		if k < 0 || fresh[k].File.fd >= 0 {
			old[i].File.Close()
			continue
		}
		fresh[k].File = old[i].File
	}
}

// Folder is a [Sensor] whose hardware is entries of sysfs folders.
type Folder struct {
	name  string
	root  Root
	look  func(Root) []Attribute
	probe Probe
	attrs []Attribute
	found atomic.Int32
}

// NewFolder makes a sensor that calls look at first and once each [Reprobe] and
// reads what it gave, in its order.
func NewFolder(name string, root Root, look func(Root) []Attribute) *Folder {
	return &Folder{name: name, root: root, look: look}
}

// Name names the sensor.
func (f *Folder) Name() string { return f.name }

// Found tells how many attributes were found at the last look.
func (f *Folder) Found() int { return int(f.found.Load()) }

// Read implements [Sensor].
func (f *Folder) Read(dst []Reading) []Reading {
	for i := range f.Attributes() {
		dst = f.attrs[i].Read(dst)
	}
	return dst
}

// Attributes looks at the folders where that is due and gives what is there, for
// sensors that make more of it than [Folder.Read] does.
func (f *Folder) Attributes() []Attribute {
	if f.probe.Due() {
		fresh := f.look(f.root)
		Adopt(f.attrs, fresh)
		f.attrs = fresh
		f.found.Store(int32(len(fresh)))
	}
	return f.attrs
}

// Close gives all files back.
func (f *Folder) Close() error {
	for i := range f.attrs {
		f.attrs[i].File.Close()
	}
	return nil
}

// Real follows the link that an entry of a class folder is into sys/devices, where
// the path holds the device's address: after a renumbering hwmon1 may be another
// chip, but .../1-0040/hwmon/hwmon1 is that one or none. What is no relative link
// comes back as it is.
func (r Root) Real(p string) string {
	to, err := r.Link(p)
	if err != nil || path.IsAbs(to) {
		return p
	}
	return path.Join(path.Dir(p), to)
}

// Text reads a short text attribute (a label, a driver's name), at most 64 bytes,
// blanks and NUL cut off; "" where there is none.
func (r Root) Text(p string) string {
	b, err := r.ReadOnce(p, schema.MaxName)
	if err != nil {
		return ""
	}
	return string(TrimSpace(b))
}

// Numbered gives those of the names that are prefix and a number, in order of the
// number.
func Numbered(names []string, prefix string) iter.Seq[string] {
	return func(yield func(string) bool) {
		var ns []int
		for _, n := range names {
			if num, ok := strings.CutPrefix(n, prefix); ok {
				if v, err := strconv.ParseUint(num, 10, 16); err == nil {
					ns = append(ns, int(v))
				}
			}
		}
		slices.Sort(ns)
		for _, v := range ns {
			if !yield(prefix + strconv.Itoa(v)) {
				return
			}
		}
	}
}
