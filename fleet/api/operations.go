// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"sync"
	"time"

	"fulmar/fleet/api/door"
	"fulmar/schema/rest"
)

const (
	// maxRunning bounds operations at one time, maxEnded those that can still be asked
	// about.
	maxRunning = 16
	maxEnded   = 100
)

// States of an operation.
const (
	running = "running"
	done    = "done"
	failed  = "failed"
)

// operations are long changes under way, and the last that ended. They are not kept
// over a restart: what they do can be begun again, and is then taken up.
type operations struct {
	door *door.Door
	born string // ids of two starts of the server never look alike

	mu    sync.Mutex
	count int
	by    map[string]*operation
	order []string // of ids, oldest first
}

type operation struct {
	rest.Operation
	tenant string
}

func newOperations(d *door.Door) *operations {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return &operations{door: d, born: hex.EncodeToString(b[:]), by: map[string]*operation{}}
}

// begin starts a change, which goes on when its request has ended.
func (o *operations) begin(ctx context.Context, tenant string, op rest.Operation, do func(context.Context) error) (rest.Operation, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	under := 0
	for _, x := range o.by {
		if x.State == running {
			under++
		}
	}
	if under >= maxRunning {
		return op, door.Fail(rest.CodeOperations, "")
	}
	o.count++
	op.ID, op.State, op.Began = o.born+"-"+strconv.Itoa(o.count), running, time.Now().UTC()
	x := &operation{op, tenant}
	o.by[op.ID] = x
	o.order = append(o.order, op.ID)
	o.clean()
	ctx = context.WithoutCancel(ctx)
	go func() {
		err := do(ctx)
		o.mu.Lock()
		defer o.mu.Unlock()
		x.Ended, x.State = time.Now().UTC(), done
		if err != nil {
			p := o.door.Problem(ctx, err)
			x.State, x.Operation.Problem = failed, &p
		}
	}()
	return op, nil
}

// clean forgets the oldest that have ended.
func (o *operations) clean() {
	for i := 0; len(o.order) > maxEnded && i < len(o.order); {
		if id := o.order[i]; o.by[id].State != running {
			delete(o.by, id)
			o.order = append(o.order[:i], o.order[i+1:]...)
		} else {
			i++
		}
	}
}

func (o *operations) get(tenant, id string) (rest.Operation, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.by[id]
	if x == nil || x.tenant != tenant {
		return rest.Operation{}, false
	}
	return x.Operation, true
}
