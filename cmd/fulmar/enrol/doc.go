// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package enrol is `fulmar enrol`: it brings the board that it runs on into a fleet, and
// says each thing as it becomes true, up to the first record that the fleet has. What can
// be wrong with a token or an address it finds out before it changes anything. The key and
// the certificate are fulmard's business: enrol writes its config, starts it anew, and
// looks on.
package enrol
