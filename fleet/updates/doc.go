// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package updates fits the parts of an update to each other and to the rest of the fleet:
// releases and their objects (fleet/releases, fleet/objects), who signs which board runs
// what (fleet/director), how it is proven (fleet/proof), and the rollouts that want all of
// it (fleet/rollout). It decides nothing that a part decides.
package updates
