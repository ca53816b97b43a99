// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package packages tries the Debian packages where their users install them: in small
// systems of Debian 11, 12 and 13, from the first installation to the purge, with power
// cuts and full disks between. It wants `make cross man` done before, and root.
package packages
