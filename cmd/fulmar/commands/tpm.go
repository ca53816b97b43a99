// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/internal/cli"
	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/floor"
)

func tpmCommand() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "tpm", Short: "what this board's TPM is, and whether it does what a board needs"})
	const place = `The TPM is /dev/tpmrm0 if --path does not say otherwise. If there is no storage root key
in it one is made, which stays; nothing else does.`
	var path string
	var asJSON bool
	info := &cobra.Command{
		Use: "info", Short: "what this board's TPM is, and what it can prove", Long: place, Args: cli.Words(),
		Example: "  fulmar tpm info\n  fulmar tpm info --json | jq -r .ek_sha256",
		RunE:    func(c *cobra.Command, _ []string) error { return tpmInfo(path, asJSON, c.OutOrStdout()) },
	}
	info.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	test := &cobra.Command{
		Use: "test", Short: "do each thing once that a board needs of it", Long: "Each step is told with its time; it exits 1 if one fails.\n\n" + place, Args: cli.Words(),
		Example: "  sudo fulmar tpm test",
		RunE:    func(c *cobra.Command, _ []string) error { return tpmTest(path, c.OutOrStdout()) },
	}
	for _, k := range []*cobra.Command{info, test} {
		k.ValidArgsFunction = cli.Nothing
		k.Flags().StringVar(&path, "path", "/dev/tpmrm0", "a device, or unix:/path or tcp:host:port of a software TPM")
		cli.File(k, "path")
	}
	c.AddCommand(info, test)
	return c
}

// tpmReport is what `tpm info --json` writes.
type tpmReport struct {
	Path string `json:"path"`
	tpm.Info
	SRKName string `json:"srk_name"` // hex
	EKHash  string `json:"ek_sha256"`
	EKCerts int    `json:"ek_chain"` // certificates that the board can show of that key
	Level   string `json:"attestation"`
}

func tpmInfo(path string, asJSON bool, stdout io.Writer) error {
	r, err := askTPM(path)
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	r.write(stdout)
	return nil
}

func askTPM(path string) (r tpmReport, err error) {
	t, err := tpm.Open(tpm.Config{Path: path})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	r.Path = path
	if r.Info, err = t.Info(); err != nil {
		return r, err
	}
	ek, certs, err := t.EndorsementKey()
	h := attest.EKHash(ek)
	r.SRKName, r.EKHash, r.EKCerts = hex.EncodeToString(r.Info.SRKName), hex.EncodeToString(h[:]), len(certs)
	r.Level = "bound"
	if r.MeasuredBoot {
		r.Level = "measured"
	}
	return r, err
}

func (r tpmReport) write(w io.Writer) {
	line := func(name, format string, a ...any) { fmt.Fprintf(w, "%-13s%s\n", name, fmt.Sprintf(format, a...)) }
	line("TPM", "%s, maker %s, model %s, firmware %s, at %s", r.Kind, r.Maker, orNone(r.Model), r.Firmware, r.Path)
	if r.EKCerts > 0 {
		line("certificate", "the maker's, of its endorsement key, in a chain of %d: a fleet that trusts that maker knows a real TPM", r.EKCerts)
	} else {
		line("certificate", "none that fits: a fleet knows this TPM by the hash below, from a list or from the first time it saw it")
	}
	line("EK", "SHA-256 %s", r.EKHash)
	if r.SRKMade {
		line("SRK", "%s, made just now: there was none at %#x", r.SRKName, tpm.SRKHandle)
	} else {
		line("SRK", "%s", r.SRKName)
	}
	switch {
	case r.MeasuredBoot:
		line("boot", "measured: something other than the empty start stands in PCR 0 to 7")
		line("attestation", "measured: a quote tells which board reports, and what it booted to whoever knows the values")
	case r.PCRBank:
		line("boot", "not measured: PCR 0 to 7 are empty, or all alike")
		line("attestation", "bound: a quote tells which board reports, not what it booted; a fulmard that was taken over could lie")
	default:
		line("boot", "not measured: the SHA-256 bank of PCRs is off; firmware setup or tpm2_pcrallocate turns it on")
		line("attestation", "bound, once that bank is on: a quote needs it")
	}
	line("counters", "%s", map[string]string{
		tpm.RollbackYes:     "resist the putting back of older state: they are inside the chip",
		tpm.RollbackNo:      "go back with the file that this TPM keeps its state in: the fleet must remember a floor too",
		tpm.RollbackUnknown: "resist roll-back or not, as the board's maker decided where the state lies: the fleet must remember a floor too",
	}[r.Rollback])
	line("boots", "%d since it was cleared", r.Boots)
	if r.Clearable {
		line("clearing", "every program that reaches the TPM can erase it, and the board's identity with it")
	} else {
		line("clearing", "wants an authorization")
	}
	if r.Lockout {
		line("lockout", "yes: some program guesses authorizations; fulmar's keys work all the same")
	}
}

func orNone(s string) string {
	if s == "" {
		return "untold"
	}
	return s
}

// tpmTest does each thing once that a board needs, and changes nothing that lasts but
// for the storage root key, which Open makes where there is none.
func tpmTest(path string, stdout io.Writer) error {
	r := &tpmRun{w: stdout}
	r.open(path)
	if r.t == nil {
		return r.err
	}
	defer func() { _ = r.t.Close() }()
	r.signing()
	r.attesting()
	r.sealing()
	r.step("read the counter", func() (string, error) {
		c, err := r.t.Counter(floor.Index)
		if err != nil {
			return "", err
		}
		v, err := c.Value()
		if errors.Is(err, tpm.ErrMissing) {
			return "there is none yet", nil
		}
		return fmt.Sprint("it is at ", v), err
	})
	if r.err != nil {
		return fmt.Errorf("%d of %d steps failed; the first: %w", r.failed, r.steps, r.err)
	}
	fmt.Fprintln(stdout, "all is well; nothing was left behind")
	return nil
}

// tpmRun is a test that goes on.
type tpmRun struct {
	w             io.Writer
	t             *tpm.TPM
	steps, failed int
	err           error // the first
}

func (r *tpmRun) step(name string, do func() (string, error)) {
	r.steps++
	start := time.Now()
	say, err := do()
	took := float64(time.Since(start).Microseconds()) / 1000
	if err != nil {
		r.failed++
		if r.err == nil {
			r.err = err
		}
		say = "FAILED: " + err.Error()
	}
	fmt.Fprintln(r.w, strings.TrimRight(fmt.Sprintf("%-26s%10.2f ms  %s", name, took, say), " "))
}

func (r *tpmRun) open(path string) {
	r.step("open", func() (string, error) {
		t, err := tpm.Open(tpm.Config{Path: path})
		if err != nil {
			return "", err
		}
		r.t = t
		return path, nil
	})
	if r.t != nil {
		r.step("ask what it is", func() (string, error) {
			i, err := r.t.Info()
			say := fmt.Sprintf("%s, %s %s", i.Kind, i.Maker, i.Firmware)
			if i.SRKMade {
				say += "; its storage root key was made just now, and stays"
			}
			return say, err
		})
	}
}

func (r *tpmRun) signing() {
	var k *tpm.Key
	r.step("create a key", func() (say string, err error) {
		k, err = r.t.CreateKey(tpm.Signing)
		return "ECDSA P-256", err
	})
	if k == nil {
		return
	}
	d := sha256.Sum256([]byte("fulmar tpm test"))
	var sig []byte
	r.step("sign", func() (say string, err error) {
		sig, err = k.Sign(nil, d[:], crypto.SHA256)
		return "", err
	})
	if sig != nil {
		r.step("verify, in software", func() (string, error) {
			if pub, ok := k.Public().(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(pub, d[:], sig) {
				return "", errors.New("the signature is wrong")
			}
			return "", nil
		})
	}
}

func (r *tpmRun) attesting() {
	nonce := []byte("fulmar tpm test")
	var ak *tpm.Key
	r.step("create an attestation key", func() (say string, err error) {
		ak, err = r.t.CreateKey(tpm.Attestation)
		return "", err
	})
	if ak == nil {
		return
	}
	var q *attest.Statement
	r.step("quote", func() (say string, err error) {
		q, err = ak.Quote(nonce, nil, attest.BootPCRs)
		return "", err
	})
	if q != nil {
		r.step("verify it, in software", func() (string, error) {
			values, err := r.t.ReadPCRs(attest.BootPCRs)
			if err == nil {
				_, err = attest.VerifyQuote(ak.Area(), *q, nonce, nil, attest.BootPCRs, values)
			}
			return "", err
		})
	}
	r.step("prove the endorsement key", func() (string, error) {
		ek, certs, err := r.t.EndorsementKey()
		if err != nil {
			return "", err
		}
		c, err := attest.MakeCredential(ek, ak.Area(), nonce)
		if err != nil {
			return "", err
		}
		if got, err := ak.Activate(c); err != nil || string(got) != string(nonce) {
			return "", errors.Join(err, errors.New("the challenge was not answered"))
		}
		return fmt.Sprintf("%d certificates", len(certs)), nil
	})
}

func (r *tpmRun) sealing() {
	secret := []byte("fulmar tpm test, a secret key of")
	var sealed []byte
	r.step("seal 32 bytes", func() (say string, err error) {
		sealed, err = r.t.Seal(secret, tpm.Policy{})
		return "", err
	})
	if sealed != nil {
		r.step("unseal", func() (string, error) {
			got, err := r.t.Unseal(sealed, nil)
			if err == nil && string(got) != string(secret) {
				err = errors.New("other bytes came out")
			}
			return "", err
		})
	}
}
