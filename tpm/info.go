// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"fulmar/tpm/attest"

	"github.com/google/go-tpm/tpm2"
)

// Kinds of TPM. It is what the board says of itself: only a maker's certificate of the
// endorsement key proves a kind.
const (
	Discrete = "discrete" // a chip of its own
	Firmware = "firmware" // a program in the processor's secure world
	Virtual  = "virtual"  // a program on this or another machine, swtpm among them
	Unknown  = "unknown"
)

// Whether counters resist the putting back of an older state of the TPM.
const (
	// RollbackYes: a discrete TPM keeps its state inside the chip.
	RollbackYes = "yes"
	// RollbackNo: a virtual TPM keeps it in a file, which whoever has the disk can copy
	// and put back.
	RollbackNo = "no"
	// RollbackUnknown: a firmware TPM keeps it where the maker of the board decided, on
	// many Jetsons in ordinary files of the normal world and only on some in RPMB. It
	// cannot be asked; the fleet has to remember the floor too.
	RollbackUnknown = "unknown"
)

// Info is what a TPM says of itself.
type Info struct {
	Kind     string `json:"kind"`            // Discrete, Firmware, Virtual or Unknown
	Maker    string `json:"maker"`           // "IFX", "MSFT", "IBM"; at most 4 letters
	Model    string `json:"model,omitempty"` // the maker's text, at most 16 letters
	Firmware string `json:"firmware"`        // four numbers, as fwupd writes them
	Driver   string `json:"driver,omitempty"`
	// Rollback is RollbackYes, RollbackNo or RollbackUnknown, and follows from Kind.
	Rollback string `json:"rollback"`
	// Lockout: wrong authorizations were tried. Our own objects take no part in it.
	Lockout bool `json:"lockout"`
	// Clearable: every program that reaches the TPM can erase it, and with it the
	// board's identity. So it is on most boards.
	Clearable bool `json:"clearable"`
	// EKCertificates are the maker's certificates we can use, by kind of key.
	EKCertificates []string `json:"ek_certificates"`
	// PCRBank: the SHA-256 registers are active. Without them there is no quote.
	PCRBank bool `json:"pcr_bank"`
	// MeasuredBoot: something was measured into PCR 0 to 7 (see attest.Measured).
	MeasuredBoot bool   `json:"measured_boot"`
	Boots        uint32 `json:"boots"` // since the TPM was cleared
	SRKName      []byte `json:"srk_name"`
	SRKMade      bool   `json:"srk_made"` // by this Open; it was there before otherwise
}

// Info asks the TPM about itself.
func (t *TPM) Info() (Info, error) {
	i := Info{SRKName: t.SRKName(), SRKMade: t.made}
	err := t.do("ask about itself", func() error { return t.info(&i) })
	return i, err
}

func (t *TPM) info(i *Info) error {
	fixed, err := t.properties(tpm2.TPMPTFamilyIndicator, 64)
	if err != nil {
		return err
	}
	i.Maker = letters(fixed[tpm2.TPMPTManufacturer])
	i.Model = letters(fixed[tpm2.TPMPTVendorString1], fixed[tpm2.TPMPTVendorString2], fixed[tpm2.TPMPTVendorString3], fixed[tpm2.TPMPTVendorString4])
	v1, v2 := fixed[tpm2.TPMPTFirmwareVersion1], fixed[tpm2.TPMPTFirmwareVersion2]
	i.Firmware = fmt.Sprintf("%d.%d.%d.%d", v1>>16, v1&0xffff, v2>>16, v2&0xffff)
	i.Driver = t.t.Driver()
	i.Kind = kind(i.Maker, i.Model, i.Driver)
	i.Rollback = map[string]string{Discrete: RollbackYes, Virtual: RollbackNo}[i.Kind]
	if i.Rollback == "" {
		i.Rollback = RollbackUnknown
	}
	variable, err := t.properties(tpm2.TPMPTPermanent, 1)
	if err != nil {
		return err
	}
	// TPMA_PERMANENT: lockoutAuthSet 2, disableClear 8, inLockout 9.
	p := variable[tpm2.TPMPTPermanent]
	i.Lockout = p>>9&1 == 1
	i.Clearable = p>>8&1 == 0 && p>>2&1 == 0
	if i.EKCertificates, err = t.certified(); err != nil {
		return err
	}
	values, err := t.pcrs(attest.BootPCRs)
	if err != nil && !errors.Is(err, ErrMissing) {
		return err
	}
	i.PCRBank = err == nil
	i.MeasuredBoot = attest.Measured(values)
	c, err := tpm2.ReadClock{}.Execute(t.t)
	if err != nil {
		return err
	}
	i.Boots = c.CurrentTime.ClockInfo.ResetCount
	return nil
}

// properties reads numbered properties from a first one on, in one answer.
func (t *TPM) properties(first tpm2.TPMPT, n uint32) (map[tpm2.TPMPT]uint32, error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(first), PropertyCount: n}.Execute(t.t)
	if err != nil {
		return nil, err
	}
	l, err := r.CapabilityData.Data.TPMProperties()
	if err != nil {
		return nil, err
	}
	m := map[tpm2.TPMPT]uint32{}
	for _, p := range l.TPMProperty {
		m[p.Property] = p.Value
	}
	return m, nil
}

// letters turns numbers into the text they hold; other bytes are left out, as this
// goes into logs and pages.
func letters(words ...uint32) string {
	var b []byte
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	b = bytes.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, b)
	return strings.Join(strings.Fields(string(b)), " ")
}

// kind goes by the maker (TCG Vendor ID Registry) where he makes one kind only, and by
// the kernel's driver. MSFT is in virtual machines and in Jetsons' secure world.
func kind(maker, model, driver string) string {
	switch {
	case maker == "IBM", maker == "VMW", maker == "GOOG", strings.HasPrefix(model, "SW "), driver == "virtual", driver == "tpm-svsm":
		return Virtual
	case driver == "ftpm-tee", driver == "optee-ftpm", maker == "INTC", maker == "AMD", maker == "QCOM":
		return Firmware
	case driver == "tpm_tis_spi", driver == "tpm_tis_i2c", driver == "tpm_i2c_infineon",
		maker == "IFX", maker == "STM", maker == "NTC", maker == "NTZ", maker == "ATML", maker == "NSG", maker == "CROS":
		return Discrete
	}
	return Unknown
}
