// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import "reflect"

// FixedAtStart names the changed sections that a running agent does not apply.
func FixedAtStart(old, next *Config) []string {
	var out []string
	for _, s := range []struct {
		key string
		a   any
		b   any
	}{
		{"board", old.Board, next.Board},
		{"data", old.Data, next.Data},
		{"fleet", old.Fleet, next.Fleet},
		{"broker", old.Broker, next.Broker},
		{"key", old.Key, next.Key},
		{"tpm", old.TPM, next.TPM},
		{"spool", old.Spool, next.Spool},
		{"link", old.Link, next.Link},
		{"infer", old.Infer, next.Infer},
		{"status", old.Status, next.Status},
		{"log.format", old.Log.Format, next.Log.Format},
	} {
		if !reflect.DeepEqual(s.a, s.b) {
			out = append(out, s.key)
		}
	}
	return out
}
