// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Bounds of an external signer.
const (
	// signerTime is how long one answer may take: a person may have to touch a token.
	signerTime = 60 * time.Second
	// signerGrace is how long the pipes are waited for after the process was killed.
	signerGrace = 2 * time.Second
	// maxAnswer bounds its answer in bytes: a public key and a signature take 300.
	maxAnswer = 4 << 10
	// maxStderr is how much of its talk is kept, for the error.
	maxStderr = 400
	// maxWords bounds program and arguments.
	maxWords = 32
)

// ErrSigner: an external signer did not answer, or not as it should.
var ErrSigner = errors.New("external signer")

// process is a key behind a program that is run for each answer. It keeps no state:
// a signer that hangs, crashes or is replaced spoils one answer.
type process struct {
	argv   []string
	public crypto.PublicKey
	id     string
	limit  time.Duration
}

// The request is one line with its fields in this order and without spaces, so that a
// shell script can take it apart. docs/signers/README.md is for those who write one.
type signerRequest struct {
	V    int    `json:"v"`
	Op   string `json:"op"`             // public or sign
	Key  string `json:"key,omitempty"`  // sign: id of the key, see KeyID
	Hash string `json:"hash,omitempty"` // sign: sha256 (data is a digest) or none (data is the message)
	Data []byte `json:"data,omitempty"` // sign
}

type signerAnswer struct {
	V         int    `json:"v"`
	Public    []byte `json:"public"`    // SubjectPublicKeyInfo, DER
	Signature []byte `json:"signature"` // ECDSA: ASN.1 DER
	Error     string `json:"error"`
}

func openProcess(rest string) (crypto.Signer, error) { return newProcess(rest, signerTime) }

func newProcess(rest string, limit time.Duration) (crypto.Signer, error) {
	p := &process{argv: strings.Split(rest, " "), limit: limit}
	if !filepath.IsAbs(p.argv[0]) {
		return nil, fmt.Errorf("%w: program %q is no absolute path", ErrReference, p.argv[0])
	}
	if len(p.argv) > maxWords {
		return nil, fmt.Errorf("%w: %d words, at most %d", ErrReference, len(p.argv), maxWords)
	}
	a, err := p.ask(signerRequest{V: 1, Op: "public"})
	if err != nil {
		return nil, err
	}
	if p.public, err = parsePublic(a.Public); err != nil {
		return nil, fmt.Errorf("%w %s: its public key: %w", ErrSigner, p.argv[0], err)
	}
	p.id, err = KeyID(p.public)
	return p, err
}

// Public implements [crypto.Signer].
func (p *process) Public() crypto.PublicKey { return p.public }

// Sign implements [crypto.Signer]. An answer that does not verify is an error.
func (p *process) Sign(_ io.Reader, data []byte, opts crypto.SignerOpts) ([]byte, error) {
	req := signerRequest{V: 1, Op: "sign", Key: p.id, Data: data}
	var good func(sig []byte) bool
	switch k := p.public.(type) {
	case *ecdsa.PublicKey:
		if opts.HashFunc() != crypto.SHA256 || len(data) != crypto.SHA256.Size() {
			return nil, fmt.Errorf("%w: a P-256 key signs SHA-256 digests of 32 bytes, not %v of %d", ErrSigner, opts.HashFunc(), len(data))
		}
		req.Hash = "sha256"
		good = func(sig []byte) bool { return ecdsa.VerifyASN1(k, data, sig) }
	case ed25519.PublicKey:
		if opts.HashFunc() != 0 || len(data) > MaxPayload+2*maxType {
			return nil, fmt.Errorf("%w: an Ed25519 key signs messages of at most %d bytes, not %v of %d", ErrSigner, MaxPayload+2*maxType, opts.HashFunc(), len(data))
		}
		req.Hash = "none"
		good = func(sig []byte) bool { return ed25519.Verify(k, data, sig) }
	}
	a, err := p.ask(req)
	if err != nil {
		return nil, err
	}
	if !good(a.Signature) {
		return nil, fmt.Errorf("%w %s: its signature of %d bytes does not verify with its public key (an ECDSA one must be ASN.1 DER)", ErrSigner, p.argv[0], len(a.Signature))
	}
	return a.Signature, nil
}

// ask runs the program for one question.
func (p *process) ask(req signerRequest) (*signerAnswer, error) {
	line, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.argv[0], p.argv[1:]...)
	cmd.Stdin = bytes.NewReader(append(line, '\n'))
	out, talk := &head{limit: maxAnswer + 1}, &head{limit: maxStderr}
	cmd.Stdout, cmd.Stderr = out, talk
	// A script's children go with it, so that none holds a token or the pipes.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = signerGrace
	err = cmd.Run()
	said := func() string {
		if s := strings.TrimSpace(strings.ToValidUTF8(talk.b.String(), "?")); s != "" {
			return fmt.Sprintf("; it said: %q", s)
		}
		return ""
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w %s: no answer to %q within %v%s", ErrSigner, p.argv[0], req.Op, p.limit, said())
	}
	var a signerAnswer
	if jerr := strict(out.b.Bytes(), maxAnswer, &a); jerr == nil && a.Error != "" {
		return nil, fmt.Errorf("%w %s: it refused %q: %.*q", ErrSigner, p.argv[0], req.Op, maxStderr, a.Error)
	} else if err != nil {
		return nil, fmt.Errorf("%w %s: it failed on %q: %w%s", ErrSigner, p.argv[0], req.Op, err, said())
	} else if jerr != nil {
		return nil, fmt.Errorf("%w %s: its answer to %q is not one line of JSON as it should be: %w%s", ErrSigner, p.argv[0], req.Op, jerr, said())
	}
	if a.V != 1 {
		return nil, fmt.Errorf("%w %s: it answered in version %d of the protocol, wants 1", ErrSigner, p.argv[0], a.V)
	}
	return &a, nil
}

// head keeps the first bytes of what is written and lets the rest go.
type head struct {
	b     bytes.Buffer
	limit int
}

func (h *head) Write(b []byte) (int, error) {
	h.b.Write(b[:min(len(b), h.limit-h.b.Len())])
	return len(b), nil
}
