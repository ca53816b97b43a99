// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package memdisk

import "sync/atomic"

const pageSize = 4096

type page struct {
	owner uint64 // the image that may write it in place
	data  [pageSize]byte
}

var owners atomic.Uint64

// Image is the content of a disk. Clones share what neither has written since, so
// a state of 48 MiB costs what it differs by. It does no locking.
type Image struct {
	id    uint64
	pages []*page // nil: zeros
}

// NewImage gives an image of zeros; size is rounded up to 4 KiB.
func NewImage(size int64) *Image {
	return &Image{id: owners.Add(1), pages: make([]*page, (size+pageSize-1)/pageSize)}
}

// Size in bytes.
func (m *Image) Size() int64 { return int64(len(m.pages)) * pageSize }

// Clone gives an image of the same content. Neither sees what the other writes.
func (m *Image) Clone() *Image {
	m.id = owners.Add(1) // its own pages are shared from now on
	return &Image{id: owners.Add(1), pages: append([]*page(nil), m.pages...)}
}

// WriteAt puts data at off and tells how much of it lies on the disk.
func (m *Image) WriteAt(data []byte, off int64) (n int) {
	for n < len(data) && off < m.Size() {
		i := off / pageSize
		p := m.pages[i]
		if p == nil || p.owner != m.id {
			fresh := &page{owner: m.id}
			if p != nil {
				fresh.data = p.data
			}
			m.pages[i], p = fresh, fresh
		}
		k := copy(p.data[off%pageSize:], data[n:])
		n, off = n+k, off+int64(k)
	}
	return n
}

// ReadAt fills dst from off and tells how much of it lies on the disk.
func (m *Image) ReadAt(dst []byte, off int64) (n int) {
	for n < len(dst) && off < m.Size() {
		end := min(len(dst), n+int(pageSize-off%pageSize))
		if p := m.pages[off/pageSize]; p != nil {
			copy(dst[n:end], p.data[off%pageSize:])
		} else {
			clear(dst[n:end])
		}
		n, off = end, off+int64(end-n)
	}
	return n
}
