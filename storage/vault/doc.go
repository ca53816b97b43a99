// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package vault keeps the data keys of a spool: with them what lies on a board's
// disk can be read only on that board, or by who has the fleet's recovery key.
//
// # Who holds what
//
// A data key is 32 random bytes. It is never on the disk as it is: the keyring
// ([Keys]) keeps it sealed by a [Holder] (a TPM, or for now a key file) and, where
// a recovery key is configured, a second time encrypted to the public half of it
// (HPKE, RFC 9180: X25519, HKDF-SHA256, AES-256-GCM). The private half is made
// offline and stays there. No record is encrypted with a data key itself: each
// segment has a key of its own, derived from data key, random salt and what the
// segment says of itself.
//
// # On disk
//
//	keys, keys.bak   two copies of the keyring, each replaced whole; the one with
//	                 the higher generation stands
//	keys.damaged     what was there when neither copy could be read
//
// A copy is magic "fulkeys1" (8 bytes), version, number of keys (1 byte each), 2
// zero bytes, generation (8), the keys oldest first, CRC-32C. A key is id, time of
// making in ms since 1970, id of the recovery key (8 each), kind of holder (1 byte
// of length), sealed blob, wrapped key (2 bytes of length each). All numbers are
// little endian. Magic, and the places of version and CRC, are for ever.
//
// # What can go wrong
//
// A key that its holder can never unseal again (TPM cleared, key file lost) stays
// in the keyring for the recovery key, and a new one is made: the board goes on.
// A holder that only fails for now (TPM busy) makes [Open] fail, and nothing is
// changed.
package vault
