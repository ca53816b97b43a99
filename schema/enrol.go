// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

// Paths of the enrolment interface on the fleet's HTTPS address. Bodies are JSON;
// byte strings in them are base64.
const (
	EnrolPath = "/enrol/v1"       // POST EnrolRequest, server-authenticated TLS
	ProvePath = "/enrol/v1/prove" // POST ProveRequest, the answer to a challenge
	RenewPath = "/enrol/v1/renew" // POST EnrolRequest without token, mutual TLS
)

// Where a board's private key lives.
const (
	KeySoftware = "software" // a file: it can be copied off the disk
	KeyTPM      = "tpm"      // a TPM: it cannot be copied
)

// EnrolRequest asks for a board's first (or next) certificate.
//
// Without a token the fleet decides by what the TPM proves, or a person does on the
// page: the answer is then an [EnrolWait].
type EnrolRequest struct {
	Token string            `json:"token,omitempty"` // secret part of a join token
	Board string            `json:"board"`           // wished name
	CSR   string            `json:"csr"`             // PEM, PKCS #10, signed by the board's key
	Mode  string            `json:"mode"`            // KeySoftware or KeyTPM
	Facts map[string]string `json:"facts,omitempty"`
	TPM   *TPMClaim         `json:"tpm,omitempty"` // mode tpm: always at EnrolPath; at RenewPath none
}

// TPMClaim is what a board says of its TPM. None of it is believed before the
// challenge is answered.
type TPMClaim struct {
	EK      []byte   `json:"ek"`                 // TPMT_PUBLIC of the endorsement key
	EKCerts [][]byte `json:"ek_certs,omitempty"` // DER, its certificate first, then intermediates; at most MaxEKCerts
	AK      []byte   `json:"ak"`                 // TPMT_PUBLIC of the attestation key
	Key     []byte   `json:"key"`                // TPMT_PUBLIC of the key in the CSR
	// Certify is the AK's statement that Key lives in the same TPM, for the nonce
	// SHA-256(token) and the report SHA-256(DER of the CSR).
	Certify TPMStatement `json:"certify"`
	Kind    string       `json:"kind"` // discrete, firmware, virtual, unknown: the board's own word
	// Maker and Firmware as the TPM tells them, "IFX", "7.85"; at most MaxName bytes each.
	Maker    string `json:"maker,omitempty"`
	Firmware string `json:"firmware,omitempty"`
}

// TPMStatement is what an attestation key signed: a TPMS_ATTEST and a TPMT_SIGNATURE.
type TPMStatement struct {
	Attested  []byte `json:"attested"`
	Signature []byte `json:"signature"`
}

// MaxEKCerts is how many certificates a TPMClaim may hold: makers' chains have two
// or three.
const MaxEKCerts = 4

// EnrolWait is an answer with status 202: no certificate yet.
type EnrolWait struct {
	// Why is WaitProof (answer the challenge at ProvePath) or WaitApproval (a person
	// has to decide: ask again with the same keys after RetryAfterMs).
	Why          string `json:"why"`
	RetryAfterMs int64  `json:"retry_after_ms,omitempty"`
	// Say is a sentence for the log of the board.
	Say string `json:"say"`
	// Fingerprint is what the person sees beside the board's name: the first 16 hex
	// digits of SHA-256 of the EK, or of the key where there is no TPM.
	Fingerprint string `json:"fingerprint,omitempty"`

	ID         string `json:"id,omitempty"`          // of the challenge; good once and for 5 minutes
	Blob       []byte `json:"blob,omitempty"`        // TPM2_MakeCredential's credential
	Secret     []byte `json:"secret,omitempty"`      // and its encrypted seed
	QuoteNonce []byte `json:"quote_nonce,omitempty"` // 32 bytes for the quote
}

// Why a board has no certificate yet.
const (
	WaitProof    = "proof"
	WaitApproval = "approval"
)

// ProveRequest answers a challenge: the TPM with the EK of the claim holds its AK.
type ProveRequest struct {
	ID string `json:"id"`
	// Proof is HMAC-SHA256 under the secret of the credential over SHA-256(DER of the CSR).
	Proof []byte `json:"proof"`
	// Quote is signed by the AK over AttestPCRs for QuoteNonce and the report
	// SHA-256(DER of the CSR).
	Quote TPMStatement `json:"quote"`
	PCRs  [][]byte     `json:"pcrs"` // their values in rising order, 32 bytes each
}

// AttestPCRs are the PCRs (SHA-256 bank) that boards quote: 0 to 7 are the boot's, 8
// to 15 the system's, with fulmar's own among them.
func AttestPCRs() []int { return []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} }

// EnrolReply is the answer: who the board is and where it connects.
type EnrolReply struct {
	Tenant      string `json:"tenant"`
	Board       string `json:"board"`
	Certificate string `json:"certificate"` // PEM, leaf
	CA          string `json:"ca"`          // PEM, the authorities of boards and server: one, or two while one follows the other
	Broker      string `json:"broker"`      // host:port of MQTT over TLS
	// Trust is how the fleet knows that the board's key is where it says, one of the
	// Trust constants; also in the certificate (organizational unit).
	Trust string `json:"trust,omitempty"`
	// KeySet is the envelope of the fleet's key set (trust.KeySet), which says whose
	// commands and settings the board takes. A board that has one takes only a successor.
	KeySet []byte `json:"keyset,omitempty"`
}

// How the fleet knows where a board's key is, best first. Decided by the fleet.
const (
	TrustMaker    = "ek-chain"     // the EK's certificate leads to a maker the fleet trusts
	TrustListed   = "ek-listed"    // the EK's hash is on the fleet's list
	TrustFirstUse = "ek-first-use" // a TPM, which one is taken as seen at the first enrolment
	TrustSoftware = "software"     // no TPM: the key can be copied
)
