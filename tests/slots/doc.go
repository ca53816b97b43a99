// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package slots tries upgrades with the real programs: the launcher, the agent in
// several versions, programs that are broken in several ways, a fleet that is told, and
// processes killed at any moment. A loop stands for systemd.
package slots
