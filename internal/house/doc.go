// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package house holds the rules of the house as tests: who may import whom, what
// each program links, package docs, licence lines, sizes. It has no code of its
// own. A rule that is in the way is changed here, with the reason beside it.
package house
