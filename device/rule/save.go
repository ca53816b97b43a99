// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import "time"

// Saved is what outlives the program of a rule: enough that nothing is done twice, that
// what is held is given back, and that leases end.
type Saved struct {
	Name  string   `cbor:"1,keyasint"`
	Hash  [16]byte `cbor:"2,keyasint"` // a rule that says something else begins anew
	Nonce uint64   `cbor:"3,keyasint"`
	Fired uint64   `cbor:"4,keyasint"`
	On    bool     `cbor:"5,keyasint,omitempty"`
	Spent bool     `cbor:"6,keyasint,omitempty"`
	Did   bool     `cbor:"7,keyasint,omitempty"`
	// LeaseMs is what is left of the lease, EveryMs of the time until it may fire again;
	// in time that the board runs.
	LeaseMs uint64     `cbor:"8,keyasint,omitempty"`
	EveryMs uint64     `cbor:"9,keyasint,omitempty"`
	Work    *SavedWork `cbor:"10,keyasint,omitempty"`
}

// SavedWork is what was still to be done.
type SavedWork struct {
	Ends    bool   `cbor:"1,keyasint,omitempty"` // of else
	Next    int    `cbor:"2,keyasint,omitempty"`
	Attempt uint64 `cbor:"3,keyasint,omitempty"`
}

// Save gives what an engine of a later life begins with. running tells that time in it
// runs down, so that it has to be saved again before long.
func (e *Engine) Save(now time.Duration) (out []Saved, running bool) {
	for _, r := range e.rules {
		s := Saved{Name: r.p.Name, Hash: r.p.Hash(), Nonce: r.nonce, Fired: r.fired, On: r.on, Spent: r.spent, Did: r.did}
		if r.leaseEnd != never {
			s.LeaseMs, running = uint64(max(r.leaseEnd-now, time.Millisecond).Milliseconds()), true
		}
		if r.lastFire != -never && r.lastFire+r.p.EveryFor > now {
			s.EveryMs, running = uint64((r.lastFire + r.p.EveryFor - now).Milliseconds()), true
		}
		if w := r.work; w != nil {
			s.Work = &SavedWork{w.ends, w.next, w.attempt}
		}
		out = append(out, s)
	}
	return out, running
}

// load takes up what an earlier life saved. Numbers that cannot be are taken for none.
func (r *live) load(now time.Duration, s Saved) {
	r.nonce, r.fired, r.on, r.spent, r.did = s.Nonce, s.Fired, s.On, s.On && s.Spent, s.Did
	if left := time.Duration(s.EveryMs) * time.Millisecond; left > 0 && left <= r.p.EveryFor {
		r.lastFire = now + left - r.p.EveryFor
	}
	if left := time.Duration(s.LeaseMs) * time.Millisecond; r.on && !r.spent && r.p.LeaseFor > 0 {
		r.leaseEnd = now + min(max(left, 0), r.p.LeaseFor)
	}
	if s.Work == nil {
		return
	}
	list := r.p.Do
	if s.Work.Ends {
		list = r.p.Else
	}
	if s.Work.Next < 0 || s.Work.Next >= len(list) || !s.Work.Ends && !r.on {
		return
	}
	r.work = &work{actions: list, ends: s.Work.Ends, next: s.Work.Next, attempt: s.Work.Attempt, held: !s.Work.Ends}
	if !s.Work.Ends {
		r.did = true // maybe: the command journal knows, and else is done for it
	}
}
