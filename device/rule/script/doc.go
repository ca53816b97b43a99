// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package script is rules as they are written, in the config and in the twin: read,
// checked and compiled, the shed ladder too. What they do is package rule.
package script
