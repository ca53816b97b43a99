// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fulmar/agent/chip"
	"fulmar/agent/config"
	"fulmar/schema"
	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"
)

// claimed is a claim, and what it takes to prove it.
type claimed struct {
	board         string
	token         string
	tpm           *schema.TPMClaim
	csr           []byte // DER
	key           *ecdsa.PublicKey
	secret, nonce []byte
}

func statement(s schema.TPMStatement) attest.Statement {
	return attest.Statement{Attested: s.Attested, Signature: s.Signature}
}

// challenge checks a claim as a fleet does and answers with a challenge.
func (a *authority) challenge(w http.ResponseWriter, req *schema.EnrolRequest, csr []byte) {
	parsed := must(x509.ParseCertificateRequest(csr))
	nonce, report := sha256.Sum256([]byte(req.Token)), sha256.Sum256(csr)
	c := &claimed{board: req.Board, token: req.Token, tpm: req.TPM, csr: csr, secret: make([]byte, 32), nonce: make([]byte, 32)}
	key, err := attest.VerifyCertify(req.TPM.AK, req.TPM.Key, statement(req.TPM.Certify), nonce[:], report[:])
	if err != nil || !key.Equal(parsed.PublicKey) || parsed.CheckSignature() != nil {
		refused(w, "claim", "the claim does not hold")
		return
	}
	c.key = key
	_, _ = rand.Read(c.secret)
	_, _ = rand.Read(c.nonce)
	cred, err := attest.MakeCredential(req.TPM.EK, req.TPM.AK, c.secret)
	if err != nil {
		refused(w, "claim", err.Error())
		return
	}
	id := rand.Text()
	a.mu.Lock()
	if a.open == nil {
		a.open = map[string]*claimed{}
	}
	a.open[id] = c
	a.mu.Unlock()
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(schema.EnrolWait{Why: schema.WaitProof, ID: id, Blob: cred.Blob, Secret: cred.Secret, QuoteNonce: c.nonce})
}

// prove takes the answer to a challenge.
func (a *authority) prove(w http.ResponseWriter, r *http.Request) {
	var req schema.ProveRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&req); err != nil {
		refused(w, "proof", "not JSON")
		return
	}
	a.mu.Lock()
	c := a.open[req.ID]
	delete(a.open, req.ID)
	a.mu.Unlock()
	if c == nil {
		refused(w, "proof", "no such challenge")
		return
	}
	sum := sha256.Sum256(c.csr)
	mac := hmac.New(sha256.New, c.secret)
	mac.Write(sum[:])
	_, err := attest.VerifyQuote(c.tpm.AK, statement(req.Quote), c.nonce, sum[:], attest.NewPCRs(schema.AttestPCRs()...), req.PCRs)
	if !hmac.Equal(mac.Sum(nil), req.Proof) || err != nil {
		refused(w, "proof", "the proof does not hold")
		return
	}
	a.mu.Lock()
	a.proven = append(a.proven, c)
	known := slices.ContainsFunc(a.proven[:len(a.proven)-1], func(o *claimed) bool {
		return bytes.Equal(o.tpm.AK, c.tpm.AK) && bytes.Equal(o.tpm.EK, c.tpm.EK) && a.approved.Load()
	})
	a.mu.Unlock()
	if c.token == "" && !a.approved.Load() && !known {
		a.wait(w, attest.EKHash(c.tpm.EK))
		return
	}
	a.issue(w, c.board, c.key, schema.TrustFirstUse)
}

func (a *authority) lastProven() *claimed {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.proven[len(a.proven)-1]
}

// board is an enroller with a TPM and a pin, and what it said.
type board struct {
	*Enroller
	path     string // of the TPM
	mu       sync.Mutex
	said     []Status
	replaced error
	log      bytes.Buffer
}

func hour() time.Duration { return time.Hour }

func (a *authority) board(t *testing.T, dir, path string) *board {
	t.Helper()
	sum := sha256.Sum256(a.cert.Raw)
	b := &board{path: path}
	log := slog.New(slog.NewTextHandler(&b.log, nil))
	b.Enroller = &Enroller{
		Dir: dir, Fleet: a.server.Listener.Addr().String(), Pin: sum[:], Board: "dock-1", Mode: config.KeyAuto,
		Chip: chip.New(path, dir, hour, log), Log: log,
		Say: func(s Status) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.said = append(b.said, s)
		},
		Replaced: func(why error) { b.replaced = why },
	}
	return b
}

func (b *board) last() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.said) == 0 {
		return Status{}
	}
	return b.said[len(b.said)-1]
}

// enrol runs Enrol until it has an identity; while it runs, do is called once.
func (b *board) enrol(t *testing.T, do func()) *Identity {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan *Identity, 1)
	go func() {
		id, err := b.Enrol(ctx)
		if err != nil {
			t.Error(err)
		}
		done <- id
	}()
	if do != nil {
		do()
	}
	id := <-done
	if id == nil {
		t.Fatalf("no identity; it said %+v", b.last())
	}
	return id
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not come: " + what)
		}
	}
}

// anew is the same board after a restart.
func (b *board) anew(t *testing.T, a *authority) *board {
	b.Chip.Close()
	return a.board(t, b.Dir, b.path)
}

// enrolled is a board that a person let in.
func (a *authority) enrolled(t *testing.T, path string) (*board, *Identity) {
	t.Helper()
	a.approved.Store(true)
	b := a.board(t, filepath.Join(t.TempDir(), "identity"), path)
	id := b.enrol(t, nil)
	a.approved.Store(false)
	if got := StoredBoard(b.Dir); got != id.Board {
		t.Fatalf("the stored identity names %q, it is %q", got, id.Board)
	}
	return b, id
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// From nothing to a certificate with one approval; then a restart and a renewal with
// the same keys, and a certificate by proof from a fleet that takes the old one no more.
func TestApproval(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	b := a.board(t, filepath.Join(t.TempDir(), "identity"), tpmtest.Start(t).Path())
	id := b.enrol(t, func() {
		until(t, "two questions", func() bool { return a.waits.Load() >= 2 })
		s, ek := b.last(), attest.EKHash(a.lastProven().tpm.EK)
		if want := hex.EncodeToString(ek[:8]); s.State != StateApproval || s.Mode != schema.KeyTPM || s.Fingerprint != want || !strings.Contains(s.Err.Error(), want) {
			t.Errorf("said %+v, wants %s with the fingerprint %s", s, StateApproval, want)
		}
		a.approved.Store(true)
	})
	if id.Prover() == nil || id.Trust != schema.TrustFirstUse || b.last().State != StateEnrolled {
		t.Errorf("trust %q, said %+v", id.Trust, b.last())
	}
	if n := strings.Count(b.log.String(), "not enrolled yet"); n != 1 {
		t.Errorf("the same wait was logged %d times:\n%s", n, b.log.String())
	}
	for _, n := range []string{chip.KeyFile, akFile, chip.PinFile, File} {
		if st, err := os.Stat(filepath.Join(b.Dir, n)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", n, st, err)
		}
	}
	if exists(b.Dir, softFile) {
		t.Error("there is a key in a file, too")
	}
	if c := a.lastProven().tpm; c.Kind != tpm.Virtual || c.Maker != "IBM" {
		t.Errorf("claims to be %s of %s", c.Kind, c.Maker)
	}
	asked := a.asked.Load()
	b = b.anew(t, a)
	got := b.enrol(t, nil)
	if !got.leaf.Equal(id.leaf) || a.asked.Load() != asked {
		t.Error("a second start asked the fleet")
	}
	id = got
	next, err := b.Renew(t.Context(), id)
	if err != nil || a.renewals.Load() != 1 || next.leaf.Equal(id.leaf) {
		t.Errorf("renewal: %v", err)
	}
	a.approved.Store(true)
	if next, err = b.reprove(t.Context(), id); err != nil || next.Board != "dock-1" || !next.leaf.PublicKey.(*ecdsa.PublicKey).Equal(id.leaf.PublicKey) {
		t.Errorf("certificate by proof: %v", err)
	}
}

// A token lets a board with a TPM in at once, and is bound into what it proves. One that
// the fleet refuses stays refused, unless the config has a pin beside it: then a person
// is asked.
func TestTokenAndTPM(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	soft := a.enroller(t, sha256.Sum256(a.cert.Raw))
	b := a.board(t, soft.Dir, tpmtest.Start(t).Path())
	b.TokenFile = soft.TokenFile
	if b.enrol(t, nil).Trust != schema.TrustFirstUse || a.waits.Load() != 0 || a.lastProven().token == "" {
		t.Error("the token was not what let it in")
	}
	a.refuse.Store(true)
	b = a.board(t, filepath.Join(t.TempDir(), "identity"), tpmtest.Start(t).Path())
	b.TokenFile = soft.TokenFile
	pin := b.Pin
	b.Pin = nil
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	if _, err := b.Enrol(ctx); err == nil || b.last().State != StateEnrolling || !strings.Contains(b.last().Err.Error(), "this token was used") {
		t.Errorf("with a refused token: %v, %+v", err, b.last())
	}
	a.refuse.Store(false)
	b.Pin = pin
	b.enrol(t, func() {
		until(t, "a question without the token", func() bool { return a.waits.Load() > 0 })
		a.approved.Store(true)
	})
	if a.lastProven().token != "" {
		t.Error("it went on asking with the token")
	}
}

// swtpm's other program speaks to it while nobody else does.
func tool(t *testing.T, c *tpmtest.Chip, name string, args ...string) {
	t.Helper()
	tpmtest.Need(t, name)
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+c.Sock)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, b)
	}
}

// A cleared TPM, and a disk moved to another board: new keys, a person decides, the
// old files stay aside, and nobody waits for a key that will never come back.
func TestReplaced(t *testing.T) {
	t.Parallel()
	for name, cleared := range map[string]bool{"cleared": true, "moved": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, c := newAuthority(t), tpmtest.Start(t)
			b, id := a.enrolled(t, c.Path())
			before := a.lastProven().tpm
			b.Chip.Close()
			if cleared {
				tool(t, c, "tpm2_clear", "-c", "l")
			} else {
				b.path = tpmtest.Start(t).Path()
			}
			b = b.anew(t, a)
			next := b.enrol(t, func() {
				until(t, "a question", func() bool { return a.waits.Load() > 0 })
				a.approved.Store(true)
			})
			after := a.lastProven().tpm
			if same := bytes.Equal(before.EK, after.EK); same != cleared || bytes.Equal(before.AK, after.AK) || bytes.Equal(before.Key, after.Key) {
				t.Errorf("EK the same: %v; the keys have to be new", same)
			}
			if next.leaf.Equal(id.leaf) || !errors.Is(b.replaced, tpm.ErrForeign) || !strings.Contains(b.log.String(), "another one than before, or was cleared") {
				t.Errorf("told %v; log:\n%s", b.replaced, b.log.String())
			}
			for _, n := range []string{chip.KeyFile, akFile, chip.PinFile, File} {
				if !exists(b.Dir, n+aside) {
					t.Errorf("%s is not kept aside", n)
				}
			}
			b = b.anew(t, a)
			if again := b.enrol(t, nil); !again.leaf.Equal(next.leaf) || b.replaced != nil {
				t.Error("the next start replaced the keys again")
			}
		})
	}
}

// A TPM cleared under the running board is noticed at the next signature; Keep then
// gets a new identity.
func TestClearedWhileRunning(t *testing.T) {
	t.Parallel()
	a, c := newAuthority(t), tpmtest.Start(t)
	b, id := a.enrolled(t, c.Path())
	b.Chip.Close()
	tool(t, c, "tpm2_clear", "-c", "l")
	next := make(chan *Identity, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Keep(ctx, func() *Identity { return id }, func(i *Identity) { next <- i }) }()
	sum := sha256.Sum256([]byte("handshake"))
	if _, err := id.key.Signer().Sign(rand.Reader, sum[:], crypto.SHA256); !errors.Is(err, tpm.ErrForeign) {
		t.Errorf("signed with a key of a cleared TPM: %v", err)
	}
	until(t, "a question", func() bool { return a.waits.Load() > 0 })
	a.approved.Store(true)
	if i := <-next; i.leaf.PublicKey.(*ecdsa.PublicKey).Equal(id.leaf.PublicKey) {
		t.Error("the same key")
	} else if _, err := i.key.Signer().Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Without its TPM an enrolled board has no identity, and gets none from a file; it is
// the same board when the TPM is back.
func TestTPMGone(t *testing.T) {
	t.Parallel()
	a, c := newAuthority(t), tpmtest.Start(t)
	b, id := a.enrolled(t, c.Path())
	c.Kill()
	if err := os.Remove(c.Sock); err != nil {
		t.Fatal(err)
	}
	b = b.anew(t, a)
	got := b.enrol(t, func() {
		until(t, "tpm_missing", func() bool { return b.last().State == StateNoTPM })
		time.Sleep(1200 * time.Millisecond) // one more try
		if s := b.last(); s.State != StateNoTPM || exists(b.Dir, softFile) {
			t.Errorf("it says %+v", s)
		}
		c.Run(t)
	})
	if !got.leaf.Equal(id.leaf) || b.replaced != nil {
		t.Error("another identity")
	}
}

// Which key a first start makes. "No TPM" is only where there is no node, and not
// before a firmware TPM had its time; a TPM that does not work is never none.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "tpmrm0")
	minutes := func(n time.Duration) func() time.Duration { return func() time.Duration { return n * time.Minute } }
	broken := tpmtest.Between(t, tpmtest.Start(t))
	broken.Answer = func([]byte) ([]byte, bool) { return tpmtest.Code(0x101), true }
	for name, c := range map[string]struct {
		path, mode string
		required   bool
		uptime     func() time.Duration
		want       State
		soft       bool
	}{
		"no TPM":                     {none, config.KeyAuto, false, minutes(3), StateApproval, true},
		"not yet":                    {none, config.KeyAuto, false, minutes(1), StateNoTPM, false},
		"required":                   {none, config.KeyAuto, true, minutes(3), StateNoTPM, false},
		"mode tpm":                   {none, config.KeyTPM, false, minutes(3), StateNoTPM, false},
		"failure mode":               {broken.Path(), config.KeyAuto, false, minutes(3), StateTPM, false},
		"software, though one would": {broken.Path(), config.KeySoftware, false, minutes(3), StateApproval, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			b := a.board(t, filepath.Join(t.TempDir(), "identity"), c.path)
			b.Chip, b.Mode, b.Required = chip.New(c.path, b.Dir, c.uptime, b.Log), c.mode, c.required
			ctx, cancel := context.WithCancel(t.Context())
			say := b.Say
			b.Say = func(s Status) { say(s); cancel() }
			if id, err := b.Enrol(ctx); err == nil {
				t.Fatalf("enrolled as %s", id.Board)
			}
			if s := b.last(); s.State != c.want || exists(b.Dir, softFile) != c.soft || c.soft != (s.Mode == schema.KeySoftware) || c.soft != (s.Fingerprint != "") {
				t.Errorf("says %+v, key in a file: %v", s, exists(b.Dir, softFile))
			}
		})
	}
}

// A board that began with a key in a file stays with it, until its config says tpm;
// then the file goes when the new identity is there.
func TestFromFileToTPM(t *testing.T) {
	t.Parallel()
	a, c := newAuthority(t), tpmtest.Start(t)
	a.approved.Store(true)
	soft := a.enroller(t, sha256.Sum256(a.cert.Raw))
	if _, err := soft.Enrol(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := a.board(t, soft.Dir, c.Path())
	if id := b.enrol(t, nil); id.Prover() != nil || !strings.Contains(b.log.String(), "has a TPM that its identity does not use") {
		t.Errorf("moved to the TPM unasked:\n%s", b.log.String())
	}
	b = b.anew(t, a)
	b.Mode = config.KeyTPM
	if id := b.enrol(t, nil); id.Prover() == nil || exists(b.Dir, softFile) {
		t.Error("not in the TPM, or the key in the file is still there")
	}
	if Where(b.Dir, config.KeyAuto) != schema.KeyTPM {
		t.Error("auto would look for a file")
	}
}

// Power cuts between the files of new keys: whatever is there, the next start has
// keys that work, and never one in a file.
func TestCutWhileMakingKeys(t *testing.T) {
	t.Parallel()
	a, c := newAuthority(t), tpmtest.Start(t)
	b, _ := a.enrolled(t, c.Path())
	a.approved.Store(true)
	for _, gone := range [][]string{
		{chip.KeyFile}, {akFile}, {chip.PinFile}, {chip.KeyFile, akFile}, {File}, {File, chip.KeyFile, akFile, chip.PinFile},
	} {
		for _, n := range gone {
			if err := os.Remove(filepath.Join(b.Dir, n)); err != nil {
				t.Fatal(gone, err)
			}
		}
		b = b.anew(t, a)
		if id := b.enrol(t, nil); id.Prover() == nil || exists(b.Dir, softFile) {
			t.Errorf("without %v: no key in the TPM", gone)
		}
	}
}

// Somebody between board and TPM who shows a storage root key of his own is noticed
// by the pinned name: nothing is sealed to him and no key is replaced.
func TestSomebodyBetween(t *testing.T) {
	t.Parallel()
	a, c := newAuthority(t), tpmtest.Start(t)
	b, _ := a.enrolled(t, c.Path())
	if err := os.WriteFile(filepath.Join(b.Dir, chip.PinFile), []byte("000b"+strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	b = b.anew(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	b.Say = func(s Status) {
		if s.State != StateTPM || !errors.Is(s.Err, chip.ErrBetween) {
			t.Errorf("says %+v", s)
		}
		cancel()
	}
	if _, err := b.Enrol(ctx); err == nil {
		t.Error("enrolled")
	}
	if _, err := b.Chip.Holder().Seal(make([]byte, 32)); !errors.Is(err, chip.ErrBetween) {
		t.Errorf("sealed: %v", err)
	}
	if b.replaced != nil || exists(b.Dir, chip.KeyFile+aside) {
		t.Error("the keys were replaced")
	}
}

// Answers of a fleet that no fleet gives: each is an error that says what, and the
// board asks again.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	good := schema.EnrolWait{Why: schema.WaitProof, ID: "x", Blob: []byte{1}, Secret: []byte{1}, QuoteNonce: []byte{1}}
	bad := func(change func(*schema.EnrolWait)) string {
		w := good
		change(&w)
		return string(must(json.Marshal(w)))
	}
	for want, body := range map[string]string{
		"is not JSON":                bad(func(*schema.EnrolWait) {})[:20],
		"which this version":         bad(func(w *schema.EnrolWait) { w.Why = "dance\x00" }),
		"asks to come back in -1 ms": bad(func(w *schema.EnrolWait) { w.RetryAfterMs = -1 }),
		"fields of 1, 0, 1 and 1":    bad(func(w *schema.EnrolWait) { w.Blob = nil }),
		"fields of 1, 1, 9999":       bad(func(w *schema.EnrolWait) { w.Secret = make([]byte, 9999) }),
		"fields of 1, 1, 1 and 65":   bad(func(w *schema.EnrolWait) { w.QuoteNonce = make([]byte, 65) }),
	} {
		if _, err := parseAnswer(http.StatusAccepted, []byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	// A challenge for another attestation key does not open, and says so.
	a, c := newAuthority(t), tpmtest.Start(t)
	b, id := a.enrolled(t, c.Path())
	cred := must(attest.MakeCredential(a.lastProven().tpm.EK, must(chip.Use(t.Context(), b.Chip, chip.Slow, func(c *tpm.TPM) ([]byte, error) {
		k, err := c.CreateKey(tpm.Attestation)
		if err != nil {
			return nil, err
		}
		return k.Area(), nil
	})), []byte("secret")))
	good.Blob, good.Secret = cred.Blob, cred.Secret
	if _, err := id.Prover().prove(t.Context(), &good, []byte("csr")); !errors.Is(err, tpm.ErrForeign) {
		t.Errorf("a challenge for another key: %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(202, []byte(`{"why":"proof","id":"x","blob":"AA==","secret":"AA==","quote_nonce":"AA=="}`))
	f.Add(202, []byte(`{"why":"approval","say":"\u0007","retry_after_ms":5}`))
	f.Add(200, []byte(`{"board":"a"}`))
	f.Add(403, bytes.Repeat([]byte("\xf00"), problemExcerpt)) // not UTF-8, and longer once it is
	f.Fuzz(func(t *testing.T, status int, b []byte) {
		a, err := parseAnswer(status, b)
		if err == nil && (a.reply == nil) == (a.wait == nil) {
			t.Error("neither an answer nor a wait, or both")
		}
		_, say := problem(b)
		if len(say) > problemExcerpt {
			t.Errorf("%d bytes are kept of a problem", len(say))
		}
	})
}
