// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package key

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"fulmar/trust"
)

// change is one flag of rotate: it does something to the set that is being made.
type change struct {
	flag string
	do   func(s *trust.KeySet, value string) error
}

func changes() []change {
	return []change{{"add", addKey}, {"end", endKey}, {"drop", dropKey}, {"threshold", setThreshold}}
}

// keyRotate writes the next key set as an envelope without signatures.
func keyRotate(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("fulmar key rotate", flag.ContinueOnError)
	from, out := f.String("set", "", ""), f.String("out", "", "")
	var todo []func(*trust.KeySet) error
	for _, c := range changes() {
		f.Func(c.flag, "", func(v string) error {
			todo = append(todo, func(s *trust.KeySet) error {
				if err := c.do(s, v); err != nil {
					return fmt.Errorf("--%s %s: %w", c.flag, v, err)
				}
				return nil
			})
			return nil
		})
	}
	if _, err := keyFlags(f, args, 0); err != nil {
		return err
	}
	if *out == "" || len(todo) == 0 {
		return fmt.Errorf("%w: fulmar key rotate wants --out and at least one change", ErrUsage)
	}
	if _, err := os.Lstat(*out); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already; choose another file", *out)
	}
	next := &trust.KeySet{Version: 1, Thresholds: map[trust.Role]int{}}
	if *from != "" {
		old, err := openSet(*from, "")
		if err != nil {
			return err
		}
		next.Version, next.Keys, next.Thresholds = old.Version+1, slices.Clone(old.Keys), maps.Clone(old.Thresholds)
	}
	for _, do := range todo {
		if err := do(next); err != nil {
			return err
		}
	}
	payload, err := next.Encode()
	if err != nil {
		return err
	}
	e, err := trust.NewEnvelope(trust.TypeKeySet, payload)
	if err != nil {
		return err
	}
	if err := writeEnvelope(*out, e); err != nil {
		return err
	}
	describe(stdout, e)
	fmt.Fprintf(stdout, "%s holds it without a signature\nnext: fulmar key sign KEY %s, with enough root keys of the set in force and of this one\n", *out, *out)
	return nil
}

// addKey takes ROLE=PUBLIC.pem[,FROM[,UNTIL]]. The first key of a role sets its
// threshold to 1.
func addKey(s *trust.KeySet, v string) error {
	role, rest, _ := strings.Cut(v, "=")
	parts := strings.Split(rest, ",")
	if len(parts) > 3 {
		return errors.New("wants ROLE=PUBLIC.pem[,FROM[,UNTIL]]")
	}
	k := trust.Key{Role: trust.Role(role)}
	text, err := readBounded(parts[0], 8<<10)
	if err != nil {
		return err
	}
	if k.Public, err = trust.ParsePublicPEM(text); err != nil {
		return err
	}
	for i, into := range []*uint64{&k.From, &k.Until} {
		if len(parts) > i+1 {
			if *into, err = strconv.ParseUint(parts[i+1], 10, 64); err != nil {
				return fmt.Errorf("%q is no epoch", parts[i+1])
			}
		}
	}
	s.Keys = append(s.Keys, k)
	if s.Thresholds[k.Role] == 0 {
		s.Thresholds[k.Role] = 1
	}
	return nil
}

// find gives the place of the one key whose id begins so.
func find(s *trust.KeySet, prefix string) (int, error) {
	at := -1
	for i, k := range s.Keys {
		id, err := trust.KeyID(k.Public)
		if err != nil {
			return 0, err
		}
		if strings.HasPrefix(id, prefix) {
			if at >= 0 {
				return 0, errors.New("two keys have an id that begins so")
			}
			at = i
		}
	}
	if at < 0 || len(prefix) < 8 {
		return 0, errors.New("no key of the set has this id; wants its first 8 or more hex digits")
	}
	return at, nil
}

// endKey takes ID=EPOCH, the first epoch at which the key is good no longer.
func endKey(s *trust.KeySet, v string) error {
	id, epoch, _ := strings.Cut(v, "=")
	i, err := find(s, id)
	if err != nil {
		return err
	}
	if s.Keys[i].Until, err = strconv.ParseUint(epoch, 10, 64); err != nil {
		return errors.New("wants ID=EPOCH")
	}
	return nil
}

// dropKey removes a key, and with the last one of a role its threshold.
func dropKey(s *trust.KeySet, id string) error {
	i, err := find(s, id)
	if err != nil {
		return err
	}
	role := s.Keys[i].Role
	s.Keys = slices.Delete(s.Keys, i, i+1)
	if !slices.ContainsFunc(s.Keys, func(k trust.Key) bool { return k.Role == role }) {
		delete(s.Thresholds, role)
	}
	return nil
}

func setThreshold(s *trust.KeySet, v string) error {
	role, n, _ := strings.Cut(v, "=")
	k, err := strconv.Atoi(n)
	if err != nil {
		return errors.New("wants ROLE=N")
	}
	s.Thresholds[trust.Role(role)] = k
	return nil
}
