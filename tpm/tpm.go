// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"fulmar/tpm/attest"
	"fulmar/tpm/bus"

	"github.com/google/go-tpm/tpm2"
	gotpm "github.com/google/go-tpm/tpm2/transport"
)

// SRKHandle is where the storage root key lies (TCG TPM v2.0 Provisioning Guidance).
const SRKHandle = 0x81000001

// DefaultTimeout bounds one command: a discrete TPM may take most of a minute to
// make an RSA key.
const DefaultTimeout = 60 * time.Second

// Config says which TPM and how.
type Config struct {
	// Path is /dev/tpmrm0 (also if empty), /dev/tpm0, unix:/path or tcp:host:port.
	Path string
	// Timeout bounds one command; 0 is DefaultTimeout.
	Timeout time.Duration
	// SRKName is the Name of the storage root key known from before (34 bytes); nil
	// takes what is there. Another one is ErrForeign.
	SRKName []byte
}

// TPM is an open TPM. Safe for concurrent use; operations wait for each other.
type TPM struct {
	mu    sync.Mutex // one operation
	t     *bus.Bus
	clean int // the opening of the transport that was cleaned
	own   bool
	srk   object
	made  bool    // the srk, by this Open
	ek    *ekSlot // which endorsement key this TPM is known by, once asked
}

// object is something in the TPM.
type object struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	pub    tpm2.TPMTPublic
}

func (o object) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: o.handle, Name: o.name, Auth: tpm2.PasswordAuth(nil)}
}

// Open opens the TPM and adopts or makes the storage root key.
func Open(c Config) (*TPM, error) {
	if c.Path == "" {
		c.Path = "/dev/tpmrm0"
	}
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	// Behind /dev/tpmrm0 the kernel starts the TPM and clears up; elsewhere we do.
	t := &TPM{t: bus.New(c.Path, c.Timeout), own: !strings.HasPrefix(c.Path, "/dev/tpmrm")}
	err := t.do("open", func() error {
		if err := t.adopt(); err != nil {
			return err
		}
		if c.SRKName != nil && !bytes.Equal(c.SRKName, t.srk.name.Buffer) {
			return fmt.Errorf("%w: the storage root key is %x, not %x", ErrForeign, t.srk.name.Buffer, c.SRKName)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, ignoreClosed(t.Close()))
	}
	return t, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Close ends the connection. Keys of it then fail.
func (t *TPM) Close() error { return t.t.Close() }

// SRKName is the Name of the storage root key, to be kept and given to Open.
func (t *TPM) SRKName() []byte { return bytes.Clone(t.srk.name.Buffer) }

// do runs one operation alone.
func (t *TPM) do(doing string, f func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.ready(); err != nil {
		return fail(doing, err)
	}
	err := f()
	if t.srk.handle != 0 && errors.Is(err, tpm2.TPMRCHandle) { // what is missing?
		if _, gone := t.read(SRKHandle); errors.Is(gone, tpm2.TPMRCHandle) {
			err = fmt.Errorf("%w: the storage root key is gone: %w", ErrForeign, err)
		}
	}
	return fail(doing, err)
}

// ready starts a TPM that nobody else starts, and removes what a broken connection
// left loaded: without a resource manager that stays and the slots run out.
func (t *TPM) ready() error {
	now, err := t.t.Open()
	if err != nil || now == t.clean || !t.own {
		return err
	}
	_, err = tpm2.Startup{StartupType: tpm2.TPMSUClear}.Execute(t.t)
	if err != nil && !errors.Is(err, tpm2.TPMRCInitialize) { // it was started already
		return err
	}
	for _, kind := range []uint32{0x80000000, 0x02000000} { // transient objects, loaded sessions
		r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: kind, PropertyCount: 64}.Execute(t.t)
		if err != nil {
			return err
		}
		l, err := r.CapabilityData.Data.Handles()
		if err != nil {
			return err
		}
		for _, h := range l.Handle {
			t.flush(h)
		}
	}
	t.clean = now
	return nil
}

// flush unloads. If it fails the connection is broken, which the next command says.
func (t *TPM) flush(h tpm2.TPMHandle) { _, _ = tpm2.FlushContext{FlushHandle: h}.Execute(t.t) }

func (t *TPM) adopt() error {
	o, err := t.read(SRKHandle)
	if errors.Is(err, tpm2.TPMRCHandle) {
		var p object
		if p, err = t.primary(tpm2.TPMRHOwner, tpm2.ECCSRKTemplate); err != nil {
			return err
		}
		_, err = tpm2.EvictControl{
			Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: p.handle, Name: p.name},
			PersistentHandle: SRKHandle,
		}.Execute(t.t)
		t.flush(p.handle)
		if err == nil {
			t.made = true
			o, err = t.read(SRKHandle)
		}
	}
	if err != nil {
		return err
	}
	if a := o.pub.ObjectAttributes; !a.Restricted || !a.Decrypt || !a.FixedTPM || !a.FixedParent || a.SignEncrypt {
		return fmt.Errorf("%w: what lies at %#x is no storage root key", ErrForeign, SRKHandle)
	}
	t.srk = o
	return nil
}

// read takes nothing on trust: the Name is computed from the public part.
func (t *TPM) read(h tpm2.TPMHandle) (object, error) {
	r, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(t.t)
	if err != nil {
		return object{}, err
	}
	return named(h, r.OutPublic, r.Name)
}

func named(h tpm2.TPMHandle, b tpm2.TPM2BPublic, said tpm2.TPM2BName) (object, error) {
	pub, err := b.Contents()
	if err != nil {
		return object{}, err
	}
	n, err := attest.Name(*pub)
	if err != nil {
		return object{}, err
	}
	if !bytes.Equal(n, said.Buffer) {
		return object{}, fmt.Errorf("%w: a Name that does not fit its public part", ErrProtocol)
	}
	return object{h, said, *pub}, nil
}

func (t *TPM) primary(hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) (object, error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(t.t)
	if err != nil {
		return object{}, err
	}
	o, err := named(r.ObjectHandle, r.OutPublic, r.Name)
	if err != nil {
		t.flush(r.ObjectHandle)
	}
	return o, err
}

// load loads a child of the storage root key; the caller flushes it.
func (t *TPM) load(pub tpm2.TPM2BPublic, priv tpm2.TPM2BPrivate) (object, error) {
	r, err := tpm2.Load{ParentHandle: t.srk.auth(), InPrivate: priv, InPublic: pub}.Execute(t.t)
	if err != nil {
		return object{}, err
	}
	o, err := named(r.ObjectHandle, pub, r.Name)
	if err != nil {
		t.flush(r.ObjectHandle)
	}
	return o, err
}

// secret gives options of a session whose secret parameters cross the bus
// encrypted, with a secret only this storage root key can unwrap.
func (t *TPM) secret(dir tpm2.AuthOption) []tpm2.AuthOption {
	return []tpm2.AuthOption{tpm2.Salted(t.srk.handle, t.srk.pub), dir}
}

// policy is a session that meets a policy. The library leaves the session loaded when
// a step of the policy fails.
func policy(steps tpm2.PolicyCallback, opts ...tpm2.AuthOption) tpm2.Session {
	return tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t gotpm.TPM, h tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
		err := steps(t, h, nonce)
		if err != nil {
			_, _ = tpm2.FlushContext{FlushHandle: h}.Execute(t)
		}
		return err
	}, opts...)
}
