// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package release is what an update consists of: a signed manifest names components, each
// with its files, what it needs, and how it has to prove itself; a file is an object,
// named by its hash, which travels as it is or in a shorter encoding.
//
// A manifest is JSON in a trust.Envelope of trust.TypeRelease, signed by release keys, who say
// what may be installed anywhere. Which board installs it is said by a Directive, signed
// by the director's key for one board. Neither key alone installs anything.
//
// Whatever an object's encoding, size or way: its SHA-256 in the manifest decides.
package release
