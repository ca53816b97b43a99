// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package look

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

const (
	// maxListings bounds the ordered listings that are kept; each holds the names of all
	// boards that matched, of 50,000 boards about a megabyte.
	maxListings = 16
	// listingLife is how long one is kept after its last page.
	listingLife = 10 * time.Minute
)

// place is what a page_token says. By name it is a name to go on after, which is right
// whatever happens in between; by another order it is a place in a kept listing, so that
// a board whose state changes in between comes neither twice nor never.
type place struct {
	Of      []byte `json:"o"`           // hash of what is listed, so that no two are mixed
	After   string `json:"a,omitempty"` // name
	Listing string `json:"l,omitempty"`
	From    int    `json:"f,omitempty"`
}

func (p place) String() string {
	b, _ := json.Marshal(p) // bytes, strings and a number always do
	return base64.RawURLEncoding.EncodeToString(b)
}

// parsePlace reads a page_token, which is of what it says it is only if its hash is of.
func parsePlace(s string, of []byte) (p place, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || json.Unmarshal(b, &p) != nil || string(p.Of) != string(of) || p.From < 0 || (p.After == "") == (p.Listing == "") {
		return place{}, door.Fail(rest.CodePageToken, "")
	}
	return p, nil
}

// listedOf hashes what a listing is of.
func listedOf(by access.Caller, q, sort string) []byte {
	h := sha256.New()
	for _, w := range []string{by.Tenant, by.Boards, q, sort} {
		h.Write([]byte(w))
		h.Write([]byte{0})
	}
	return h.Sum(nil)[:9]
}

// boardPage is some boards of a listing.
type boardPage struct {
	boards []*web.Board
	next   string // "" is the last
}

// page gives the boards of one page.
func (l *Looks) page(s *Seen, by access.Caller, in *boardsIn, size int) (boardPage, error) {
	of := listedOf(by, in.Q, in.Sort)
	var from place
	if in.PageToken != "" {
		var err error
		if from, err = parsePlace(in.PageToken, of); err != nil {
			return boardPage{}, err
		}
	}
	if less := order(in.Sort); less != nil {
		return l.ordered(s, from, of, less, size)
	}
	if from.Listing != "" {
		return boardPage{}, door.Fail(rest.CodePageToken, "")
	}
	return byName(s, from, of, in.Sort == "-name", size), nil
}

// byName gives the page after a name.
func byName(s *Seen, from place, of []byte, down bool, size int) (p boardPage) {
	n := len(s.Boards)
	i, ok := 0, false
	if from.After != "" {
		i, ok = slices.BinarySearchFunc(s.Boards, from.After, func(b web.Board, n string) int { return strings.Compare(b.Name, n) })
	}
	step, end := 1, n
	switch {
	case down && from.After == "":
		i, step, end = n-1, -1, -1
	case down:
		i, step, end = i-1, -1, -1
	case ok:
		i++
	}
	for ; i != end && (down || i < n); i += step {
		b := &s.Boards[i]
		if !s.Has(b) {
			continue
		}
		if len(p.boards) == size {
			p.next = place{Of: of, After: p.boards[size-1].Name}.String()
			break
		}
		p.boards = append(p.boards, b)
	}
	return p
}

// ordered gives a page of a listing in another order, which is made with its first page.
func (l *Looks) ordered(s *Seen, from place, of []byte, less func(a, b *web.Board) int, size int) (p boardPage, err error) {
	var names []string
	if from.After != "" {
		return p, door.Fail(rest.CodePageToken, "")
	}
	if from.Listing != "" {
		if names = l.kept.get(from.Listing, of); names == nil {
			return p, door.Fail(rest.CodeListingOver, "")
		}
	} else {
		var all []*web.Board
		for b := range s.Each {
			all = append(all, b)
		}
		slices.SortFunc(all, less)
		names = make([]string, len(all))
		for i, b := range all {
			names[i] = b.Name
		}
	}
	i := min(from.From, len(names))
	for ; i < len(names) && len(p.boards) < size; i++ {
		if b, err := s.Board(names[i]); err == nil { // else it has gone, or matches no more
			p.boards = append(p.boards, b)
		}
	}
	if i < len(names) {
		id := from.Listing
		if id == "" {
			id = l.kept.keep(names, of)
		}
		p.next = place{Of: of, Listing: id, From: i}.String()
	}
	return p, nil
}

// listings are the ordered listings that somebody pages through.
type listings struct {
	mu sync.Mutex
	by map[string]*listing
}

type listing struct {
	names []string
	of    []byte
	used  time.Time
}

// keep keeps a listing; the one unused for longest goes where there are too many.
func (k *listings) keep(names []string, of []byte) (id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clean()
	if len(k.by) >= maxListings {
		oldest := ""
		for id, l := range k.by {
			if oldest == "" || l.used.Before(k.by[oldest].used) || cmp.Compare(id, oldest) < 0 && l.used.Equal(k.by[oldest].used) {
				oldest = id
			}
		}
		delete(k.by, oldest)
	}
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	id = base64.RawURLEncoding.EncodeToString(b[:])
	k.by[id] = &listing{names, of, time.Now()}
	return id
}

// get gives the names of a listing of the same kind; nil where it is kept no more.
func (k *listings) get(id string, of []byte) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clean()
	l := k.by[id]
	if l == nil || string(l.of) != string(of) {
		return nil
	}
	l.used = time.Now()
	return l.names
}

func (k *listings) clean() {
	for id, l := range k.by {
		if time.Since(l.used) > listingLife {
			delete(k.by, id)
		}
	}
}
