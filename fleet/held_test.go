// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/fleet/ca"
	"fulmar/schema"
	"fulmar/tpm"
	"fulmar/tpm/tpmtest"
)

// TestAuthorityInTPM: a fleet whose authority's key is in the server's TPM enrols a
// board; with another TPM it does not start.
func TestAuthorityInTPM(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "authority.tss2.pem")
	rest := file + "," + chip.Path()
	if err := MakeTPMKey(rest); err != nil {
		t.Fatal(err)
	}
	if err := MakeTPMKey(rest); err == nil || !strings.Contains(err.Error(), "never written over") {
		t.Errorf("made twice: %v", err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", st.Mode(), err)
	}
	if err := ca.Init(filepath.Join(dir, "ca"), "tpm:"+rest, OpenTPMKey); err != nil {
		t.Fatal(err)
	}
	c := serveIn(t, dir)
	if c.ca.Holder() != "tpm" {
		t.Fatalf("held by %s", c.ca.Holder())
	}
	secret, err := c.reg.NewJoinToken(t.Context(), "default", "", 1, 1e12)
	if err != nil {
		t.Fatal(err)
	}
	key, csr := newCSR(t)
	status, reply, body := c.post(t, schema.EnrolPath, schema.EnrolRequest{Token: secret, Board: "b1", CSR: csr, Mode: "software"}, nil)
	if status != http.StatusOK {
		t.Fatalf("enrol: %d %s", status, body)
	}
	board, err := connect(reply.Broker, "b1", c.ca.Pool(), certOf(t, reply.Certificate, key))
	if err != nil {
		t.Fatal(err)
	}
	board.Disconnect(0)
	c.stop()
	other := tpmtest.Start(t)
	if err := os.WriteFile(filepath.Join(dir, "ca", "ca.ref"), []byte("tpm:"+file+","+other.Path()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = New(Config{Data: dir, Listen: "127.0.0.1:0", MQTT: "127.0.0.1:0"}, func(string) {}, slog.New(slog.DiscardHandler))
	if !errors.Is(err, tpm.ErrForeign) {
		t.Errorf("started with another machine's TPM: %v", err)
	}
}
