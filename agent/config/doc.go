// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package config is a board's config file: strict, small, with every default in
// one commented page ([DefaultsYAML]). A broken file never takes a board off the
// air: see [LoadOrLastGood].
package config
