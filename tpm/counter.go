// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Counter is an NV counter: it only rises, also through deletion and a new
// definition. Who has the owner's authorization can delete it, which shows as
// ErrMissing.
type Counter struct {
	t     *TPM
	index tpm2.TPMHandle
}

// Counter gives the counter at an NV index of the owner's range (0x01800000 to 0x01bfffff).
func (t *TPM) Counter(index uint32) (*Counter, error) {
	if index < 0x01800000 || index > 0x01bfffff {
		return nil, fmt.Errorf("tpm: NV index %#x is not in the owner's range", index)
	}
	return &Counter{t, tpm2.TPMHandle(index)}, nil
}

// Define makes the counter and gives its first value. One that is there is left
// alone; only its value is given.
func (c *Counter) Define() (uint64, error) {
	err := c.t.do("define a counter", func() error {
		_, err := tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: c.index, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
			Attributes: tpm2.TPMANV{AuthWrite: true, AuthRead: true, OwnerRead: true, NT: tpm2.TPMNTCounter, NoDA: true},
		})}.Execute(c.t.t)
		if errors.Is(err, tpm2.TPMRCNVDefined) {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	v, err := c.Value()
	if errors.Is(err, tpm2.TPMRCNVUninitialized) { // new, or the power was cut before its first rise
		return c.Increment()
	}
	return v, err
}

// Value reads the counter; ErrMissing if it is not defined.
func (c *Counter) Value() (v uint64, err error) {
	err = c.t.do("read a counter", func() error {
		v, err = c.read()
		return err
	})
	return v, err
}

// Increment raises the counter by one and reads it. After an error it may have risen
// or not: read it.
func (c *Counter) Increment() (v uint64, err error) {
	err = c.t.do("raise a counter", func() error {
		a, n, err := c.named()
		if err != nil {
			return err
		}
		if _, err = (tpm2.NVIncrement{AuthHandle: a, NVIndex: n}).Execute(c.t.t); err != nil {
			return err
		}
		v, err = c.read()
		return err
	})
	return v, err
}

// Delete takes it out of the TPM; ErrMissing if it is not there. A new one goes on above it.
func (c *Counter) Delete() error {
	return c.t.do("delete a counter", func() error {
		_, n, err := c.named()
		if err != nil {
			return err
		}
		_, err = tpm2.NVUndefineSpace{AuthHandle: tpm2.TPMRHOwner, NVIndex: n}.Execute(c.t.t)
		return err
	})
}

func (c *Counter) named() (tpm2.AuthHandle, tpm2.NamedHandle, error) {
	r, err := tpm2.NVReadPublic{NVIndex: c.index}.Execute(c.t.t)
	if err != nil {
		return tpm2.AuthHandle{}, tpm2.NamedHandle{}, err
	}
	p, err := r.NVPublic.Contents()
	if err != nil {
		return tpm2.AuthHandle{}, tpm2.NamedHandle{}, err
	}
	if p.Attributes.NT != tpm2.TPMNTCounter || p.DataSize != 8 {
		return tpm2.AuthHandle{}, tpm2.NamedHandle{}, fmt.Errorf("%w: what lies at %#x is no counter", ErrForeign, uint32(c.index))
	}
	return tpm2.AuthHandle{Handle: c.index, Name: r.NVName, Auth: tpm2.PasswordAuth(nil)}, tpm2.NamedHandle{Handle: c.index, Name: r.NVName}, nil
}

func (c *Counter) read() (uint64, error) {
	a, n, err := c.named()
	if err != nil {
		return 0, err
	}
	r, err := tpm2.NVRead{AuthHandle: a, NVIndex: n, Size: 8}.Execute(c.t.t)
	if err != nil {
		return 0, err
	}
	if len(r.Data.Buffer) != 8 {
		return 0, fmt.Errorf("%w: a counter of %d bytes", ErrProtocol, len(r.Data.Buffer))
	}
	return binary.BigEndian.Uint64(r.Data.Buffer), nil
}
