// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"fulmar/tpm/attest"

	"github.com/google/go-tpm/tpm2"
	gotpm "github.com/google/go-tpm/tpm2/transport"
)

// Made starts a TPM as a maker delivers it, done by swtpm_setup: endorsement
// certificates for RSA 2048 and ECC P-384, both keys persistent. It gives the files of
// the maker's root and of the authority between (PEM).
func Made(tb testing.TB) (c *Chip, root, between string) {
	tb.Helper()
	Need(tb, "swtpm_setup")
	c = stopped(tb)
	ca := filepath.Join(c.Dir, "ca")
	files := map[string]string{
		"setup.conf": "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = " + c.Dir + "/ca.conf\ncreate_certs_tool_options = " + c.Dir + "/ca.opts\n",
		"ca.conf":    fmt.Sprintf("statedir = %s\nsigningkey = %[1]s/key.pem\nissuercert = %[1]s/issuer.pem\ncertserial = %[1]s/serial\n", ca),
		"ca.opts":    "--platform-manufacturer Test\n--platform-version 1\n--platform-model Board\n",
	}
	for n, text := range files {
		if err := os.WriteFile(filepath.Join(c.Dir, n), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.Mkdir(ca, 0o700); err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command("swtpm_setup", "--tpm2", "--tpmstate", c.Dir, "--create-ek-cert", "--overwrite", "--config", filepath.Join(c.Dir, "setup.conf"))
	if text, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("swtpm_setup: %v\n%s", err, text)
	}
	c.Run(tb)
	return c, filepath.Join(ca, "swtpm-localca-rootca-cert.pem"), filepath.Join(ca, "issuer.pem")
}

// Maker is an authority of endorsement certificates of our own, for the templates that
// swtpm_setup does not serve and for certificates that are wrong.
type Maker struct {
	Root *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewMaker makes one, whose root is valid for a hundred years around now.
func NewMaker(tb testing.TB) *Maker {
	tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test maker"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-50, 0, 0), NotAfter: time.Now().AddDate(50, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	return &Maker{sign(tb, t, t, k.Public(), k), k}
}

// Sub gives an authority below m.
func (m *Maker) Sub(tb testing.TB) *Maker {
	tb.Helper()
	s := NewMaker(tb)
	t := *s.Root
	t.Subject.CommonName, t.SerialNumber = "Test maker, line 2", big.NewInt(2)
	t.RawSubject = nil
	return &Maker{sign(tb, &t, m.Root, s.key.Public(), m.key), s.key}
}

// Certify gives the certificate (DER) of an endorsement key as makers write it: no
// subject, the TPM's maker in a critical alternative name of directory form.
func (m *Maker) Certify(tb testing.TB, ek []byte, from, to time.Time) []byte {
	tb.Helper()
	k, err := attest.CheckEK(ek)
	if err != nil {
		tb.Fatal(err)
	}
	type attribute struct {
		ID    asn1.ObjectIdentifier
		Value string `asn1:"utf8"`
	}
	dir, err := asn1.Marshal([][]attribute{{{asn1.ObjectIdentifier{2, 23, 133, 2, 1}, "id:54455354"}}})
	if err != nil {
		tb.Fatal(err)
	}
	dir[0] = 0x31 // the one name in the sequence is a set
	name, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: append([]byte{0x30, byte(len(dir))}, dir...)})
	if err != nil {
		tb.Fatal(err)
	}
	return sign(tb, &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: from, NotAfter: to, KeyUsage: x509.KeyUsageKeyAgreement, BasicConstraintsValid: true,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
		ExtraExtensions:    []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: append([]byte{0x30, byte(len(name))}, name...)}},
	}, m.Root, k, m.key).Raw
}

func sign(tb testing.TB, t, parent *x509.Certificate, pub any, key *ecdsa.PrivateKey) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// Talk lets a test say to the chip what package tpm never would. The chip serves one
// connection at a time: no TPM may be open on it meanwhile.
func (c *Chip) Talk(tb testing.TB, f func(gotpm.TPM) error) {
	tb.Helper()
	n, err := net.Dial("unix", c.Sock)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	if err := n.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	if err := f(wire{n}); err != nil {
		tb.Fatal(err)
	}
}

type wire struct{ net.Conn }

func (w wire) Send(cmd []byte) ([]byte, error) {
	if _, err := w.Write(cmd); err != nil {
		return nil, err
	}
	return Message(w)
}

// Clear erases the chip, as everybody may who reaches it: the owner's keys, sealed
// secrets and counters are gone, the endorsement key stays.
func (c *Chip) Clear(tb testing.TB) {
	tb.Helper()
	c.Talk(tb, func(t gotpm.TPM) error {
		_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}.Execute(t)
		return err
	})
}

// Write puts bytes at an NV index, as a maker puts a certificate there.
func (c *Chip) Write(tb testing.TB, index uint32, b []byte) {
	tb.Helper()
	c.Talk(tb, func(t gotpm.TPM) error {
		auth := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
		_, err := tpm2.NVDefineSpace{AuthHandle: auth, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(b)),
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, PPRead: true, NoDA: true, NT: tpm2.TPMNTOrdinary},
		})}.Execute(t)
		if err != nil {
			return err
		}
		for at := 0; at < len(b); at += 512 {
			p, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(t)
			if err != nil {
				return err
			}
			_, err = tpm2.NVWrite{
				AuthHandle: auth, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: p.NVName},
				Data: tpm2.TPM2BMaxNVBuffer{Buffer: b[at:min(at+512, len(b))]}, Offset: uint16(at),
			}.Execute(t)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Loaded counts the objects and sessions that are loaded in the chip.
func (c *Chip) Loaded(tb testing.TB) (n int) {
	tb.Helper()
	c.Talk(tb, func(t gotpm.TPM) (err error) {
		n, err = Loaded(t)
		return err
	})
	return n
}

// Loaded counts the objects and sessions that are loaded in a TPM.
func Loaded(t gotpm.TPM) (n int, err error) {
	for _, kind := range []uint32{0x80000000, 0x02000000, 0x03000000} { // transient, loaded and saved sessions
		r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: kind, PropertyCount: 64}.Execute(t)
		if err != nil {
			return 0, err
		}
		l, err := r.CapabilityData.Data.Handles()
		if err != nil {
			return 0, err
		}
		n += len(l.Handle)
	}
	return n, nil
}
