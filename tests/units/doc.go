// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package units tries the systemd units of cross/systemd: read by systemd-analyze and
// held to their bounds of exposure, users and folders made in an empty root, a worker of
// another user without systemd, and with FULMAR_VM=amd64 all of it in a machine.
package units
