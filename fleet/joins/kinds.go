// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"context"
	"sync"
	"time"
)

// kindsFor is how long an answer about all boards stands: new commands come with a
// release or a restart.
const kindsFor = 15 * time.Second

// Kept asks all boards' twins at most once in a while. Safe for concurrent use.
type Kept struct {
	Ask func(ctx context.Context, tenant string) (map[string][]string, error)

	mu  sync.Mutex
	got map[string]keptAnswer
}

type keptAnswer struct {
	at  time.Time
	all map[string][]string
}

// Get gives an answer that is at most kindsFor old; who gets it does not change it.
func (k *Kept) Get(ctx context.Context, tenant string) (map[string][]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a, ok := k.got[tenant]; ok && time.Since(a.at) < kindsFor {
		return a.all, nil
	}
	all, err := k.Ask(ctx, tenant)
	if err != nil {
		return nil, err
	}
	if k.got == nil {
		k.got = map[string]keptAnswer{}
	}
	k.got[tenant] = keptAnswer{time.Now(), all}
	return all, nil
}
