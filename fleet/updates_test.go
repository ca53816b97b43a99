// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/fleet/registry"
	"fulmar/fleet/releases/releasetest"
	"fulmar/fleet/rollout/state"
	"fulmar/ota/release"
	"fulmar/schema"
	"fulmar/schema/ota"
	"fulmar/schema/rest"
	"fulmar/trust"
)

// proving is a board with a TPM that says it has committed whatever it is assigned.
type proving struct {
	*chipBoard
	set   *trust.KeySet
	mute  atomic.Bool // its TPM answers no more
	asked atomic.Int64
	fresh chan *release.Fresh
	piece chan *ota.Piece
}

func (c *town) proving(t *testing.T) *proving {
	t.Helper()
	b := &proving{chipBoard: c.chipBoard(t), set: c.keys.Set(), fresh: make(chan *release.Fresh, 8), piece: make(chan *ota.Piece, 8)}
	b.ask()
	pending, err := c.reg.Pending(t.Context(), registry.DefaultTenant)
	if err != nil || len(pending) != 1 {
		t.Fatalf("%+v, %v", pending, err)
	}
	if err := c.reg.Approve(t.Context(), registry.DefaultTenant, pending[0].ID, "test"); err != nil {
		t.Fatal(err)
	}
	code, reply, _ := b.ask()
	if code != http.StatusOK {
		t.Fatal(code)
	}
	leaf, _ := pem.Decode([]byte(reply.Certificate))
	b.cert, b.broker = tls.Certificate{Certificate: [][]byte{leaf.Bytes}, PrivateKey: b.key}, reply.Broker
	client, err := connect(b.broker, "b1", c.ca.Pool(), b.cert)
	if err != nil {
		t.Fatal(err)
	}
	b.client = client
	t.Cleanup(func() { client.Disconnect(0) })
	hear := func(channel string, fn func([]byte)) {
		if tok := client.Subscribe("f/v1/default/b1/"+channel, 1, func(_ mqtt.Client, m mqtt.Message) { go fn(m.Payload()) }); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	hear("hello/ack", func(p []byte) {
		ack := new(schema.HelloAck)
		if schema.Decode(p, ack) == nil && len(ack.Attest) > 0 {
			b.asked.Add(1)
			if !b.mute.Load() {
				b.say("at", b.attestation(ack.Attest, 1))
			}
		}
	})
	hear("ota/d", func(p []byte) {
		a := new(ota.Assignment)
		if err := schema.Decode(p, a); err != nil {
			t.Error(err)
			return
		}
		s := &ota.State{V: 1, Rollout: a.Rollout, Attempt: a.Attempt, State: ota.Committed, Release: a.Release}
		if a.Act == ota.Undo {
			s.State, s.Release = ota.RolledBack, "1.0.0"
		}
		b.say("ota/s", s)
	})
	hear("ota/c", func(p []byte) {
		d := new(ota.Down)
		if err := schema.Decode(p, d); err != nil {
			t.Error(err)
			return
		}
		switch {
		case d.Fresh != nil:
			w := d.Fresh
			proof := trust.Proof{Envelope: w.Proof.Envelope, Index: int(w.Proof.Index), Count: int(w.Proof.Count), Path: w.Proof.Path}
			if err := b.set.VerifyBatch(proof, w.Statement, trust.TypeFreshness, 0); err != nil {
				t.Error(err)
				return
			}
			f, err := release.ParseFresh(w.Statement)
			if err != nil {
				t.Error(err)
				return
			}
			b.fresh <- f
		case d.Piece != nil:
			b.piece <- d.Piece
		}
	})
	b.say("hello", &schema.Hello{
		V: 1, Board: "b1", Release: "1.0.0", Conn: uint64(time.Now().UnixMicro()), Now: schema.Time{Boot: 1, Wall: time.Now().UnixMilli()},
		Facts: map[string]string{"model": "nx16", "arch": "arm64", schema.FactCan: schema.CanUpdate},
	})
	return b
}

// newest asks what is newest.
func (b *proving) newest(nonce byte) *release.Fresh {
	b.t.Helper()
	b.say("ota/want", &ota.Want{V: 1, Nonce: bytes.Repeat([]byte{nonce}, 16)})
	select {
	case f := <-b.fresh:
		if f.Board != "b1" || f.Nonce != hex.EncodeToString(bytes.Repeat([]byte{nonce}, 16)) || time.Since(time.UnixMilli(f.Time)).Abs() > time.Minute {
			b.t.Errorf("%+v", f)
		}
		return f
	case <-time.After(10 * time.Second):
		b.t.Fatal("nobody says what is newest")
	}
	return nil
}

// TestProven: a board with a TPM counts as good once its TPM has signed, after its word,
// that it runs the release's program; as failed where it signs another, or nothing. Its
// floor rises with what is proven, and freshness tells it with the newest attempt.
func TestProven(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := releasetest.Key(t, dir)
	c := serveIn(t, dir)
	bring := func(name string, epoch uint64, needs release.Needs, content string) {
		part := releasetest.Part(t, "agent", name, "fulmard", []byte(content))
		part.Needs = needs
		m := &release.Manifest{Release: name, Epoch: epoch, Components: []release.Component{part}}
		releasetest.Bring(t.Context(), t, c.updates.Releases, registry.DefaultTenant, releasetest.Sign(t, m, key), []byte(content))
	}
	b := c.proving(t)
	ann := caller("ann", rest.RolloutsWrite, rest.BoardsRead)
	roll := func(name string, trial int64) *rest.Rollout {
		t.Helper()
		s := rest.RolloutSpec{Component: "agent", Release: name, Waves: []rest.WaveSpec{{Percent: 100, SoakS: 1, Unclear: "continue"}}, Gate: rest.GateSpec{MinFailures: 1}, Limits: rest.Limits{AckS: 5, InstallS: 60, TrialS: trial, WaveS: 60, UndoS: 20}}
		r, err := c.rolls.Create(t.Context(), ann, s)
		for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // the look is of a second ago
			r, err = c.rolls.Create(t.Context(), ann, s)
		}
		if err != nil {
			t.Fatal(err)
		}
		if r.Spec.Bytes == 0 {
			t.Errorf("not filled in: %+v", r.Spec)
		}
		if _, err := c.rolls.Act(t.Context(), ann, r.ID, -1, rest.RolloutAction{Do: "start"}); err != nil {
			t.Fatal(err)
		}
		return c.until(t, r.ID, state.Done, state.Halted)
	}
	board := func(id string) rest.RolloutBoard {
		t.Helper()
		list, err := c.rolls.Boards(t.Context(), registry.DefaultTenant, id)
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		return list[0]
	}
	if f := b.newest(1); f.Floor != 0 || len(f.Attempts) != 0 || f.KeySet != 2 {
		t.Errorf("before anything was told: %+v", f)
	}
	bring("2.0", 3, release.Needs{Arch: "arm64"}, "fulmard") // what the attested report names
	over := roll("2.0", 30)
	x := board(over.ID)
	if over.State != "done" || x.State != "good" || x.Level != "bound" || over.Levels["bound"] != 1 {
		t.Fatalf("%s: %s, %+v", over.State, over.Sentence, x)
	}
	if n := b.asked.Load(); n < 2 {
		t.Errorf("asked %d times: at its hello, and again after its word", n)
	}
	f := b.newest(2)
	if f.Floor != 3 || f.Attempts["agent"] != x.Attempt || x.Attempt == 0 {
		t.Errorf("after a proven update: %+v, attempt %d", f, x.Attempt)
	}
	// Pieces of what it was told to run, and of nothing else.
	o := releasetest.Object(t, []byte("fulmard"))
	b.say("ota/want", &ota.Want{V: 1, Object: o.Tree[:], Size: o.Size, Missing: []byte{1}, Credit: 1})
	select {
	case p := <-b.piece:
		if string(p.Data) != "fulmard" || !o.Proves(int(p.Index), p.Data, p.Path) {
			t.Errorf("%+v", p)
		}
	case <-time.After(20 * time.Second):
		t.Error("no piece of the object that it was told to run")
	}
	bring("2.1", 4, release.Needs{}, "another program")
	over = roll("2.1", 30)
	if x = board(over.ID); over.State != "halted" || x.State != "failed" || !strings.HasPrefix(x.Reason, "not-proven: the board runs ") || x.Level != "" {
		t.Errorf("%s: %+v", over.State, x)
	}
	b.mute.Store(true)
	bring("2.2", 4, release.Needs{}, "fulmard too")
	over = roll("2.2", 3)
	if x = board(over.ID); over.State != "halted" || x.State != "failed" || !strings.HasPrefix(x.Reason, "silent: ") {
		t.Errorf("%s: %+v", over.State, x)
	}
	if f = b.newest(3); f.Floor != 3 || f.Attempts["agent"] < x.Attempt {
		t.Errorf("the floor moved without a proof: %+v", f)
	}
	// A board that lacks what it needs is left out, with the reason.
	bring("3.0", 4, release.Needs{Arch: "amd64", Board: "Orin"}, "for others")
	fc, err := c.rolls.Forecast(t.Context(), ann, rest.RolloutSpec{Component: "agent", Release: "3.0"})
	if err == nil || fc == nil || len(fc.LeftOut) != 1 || !strings.Contains(fc.LeftOut[0].Reason, "needs architecture amd64, and the board has arm64; needs board Orin") {
		t.Errorf("%+v, %v", fc, err)
	}
}

// TestUploadOverAPI: the three steps over HTTPS, as a program does them, with the answers
// that tell it where to go on.
func TestUploadOverAPI(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := releasetest.Key(t, dir)
	c := serveIn(t, dir)
	admin := c.apiToken(t, registry.ScopeAdmin)
	content := bytes.Repeat([]byte("0123456789abcdef"), 300_000) // 4.8 MB: far over the bound of other bodies
	m := &release.Manifest{Release: "1.0", Components: []release.Component{releasetest.Part(t, "agent", "1.0", "fulmard", content)}}
	envelope := releasetest.Sign(t, m, key)
	body := fmt.Sprintf(`{"envelope":%q}`, base64.StdEncoding.EncodeToString(envelope))
	code, said := c.do(t, http.MethodPost, "/api/v1/releases", admin, body)
	if code != http.StatusCreated || !strings.Contains(said, `"missing":[{"tree":"`) {
		t.Fatal(code, said)
	}
	if code, said = c.do(t, http.MethodPost, "/api/v1/releases/1.0/complete", admin, ""); code != http.StatusConflict {
		t.Error(code, said)
	}
	o := releasetest.Object(t, content)
	put := func(offset int, b []byte) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, fmt.Sprintf("https://%s/api/v1/objects/%s?offset=%d", c.HTTPSAddr(), o.Tree, offset), bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+admin)
		res, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		said, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(said)
	}
	half := len(content) / 2
	if code, said = put(0, content[:half]); code != http.StatusOK || !strings.Contains(said, fmt.Sprintf(`"have":%d,"done":false`, half)) {
		t.Fatal(code, said)
	}
	if code, said = put(0, content); code != http.StatusConflict || !strings.Contains(said, fmt.Sprintf(`{"pointer":"offset","detail":"%d"}`, half)) {
		t.Error(code, said)
	}
	if code, said = c.do(t, http.MethodGet, "/api/v1/objects/"+o.Tree.String(), admin, ""); code != http.StatusOK || !strings.Contains(said, fmt.Sprintf(`"have":%d`, half)) {
		t.Error(code, said)
	}
	if code, said = put(half, content[half:]); code != http.StatusOK || !strings.Contains(said, `"done":true`) {
		t.Fatal(code, said)
	}
	if code, said = c.do(t, http.MethodPost, "/api/v1/releases/1.0/complete", admin, ""); code != http.StatusOK || !strings.Contains(said, `"state":"ready"`) {
		t.Error(code, said)
	}
	if code, said = c.do(t, http.MethodPost, "/api/v1/releases", admin, body); code != http.StatusCreated || !strings.Contains(said, `"state":"ready"`) {
		t.Error(code, said)
	}
	if code, said = c.do(t, http.MethodPost, "/api/v1/releases", admin, `{"envelope":"bm9pc2U="}`); code != http.StatusUnprocessableEntity {
		t.Error(code, said)
	}
	if code, said = c.do(t, http.MethodPost, "/api/v1/releases", c.token(t), body); code != http.StatusForbidden {
		t.Error(code, said)
	}
	if code, said = c.do(t, http.MethodGet, "/objects/"+o.Tree.String(), "", ""); code != http.StatusForbidden {
		t.Error("objects for boards, without a certificate:", code, said)
	}
	if code, said = c.do(t, http.MethodDelete, "/api/v1/releases/1.0", admin, ""); code != http.StatusNoContent {
		t.Error(code, said)
	}
}
