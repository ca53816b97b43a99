// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package key

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/cli"
	"fulmar/trust"
)

// change is one flag of rotate: it does something to the set that is being made.
type change struct {
	flag, value, help string
	do                func(s *trust.KeySet, value string) error
}

func changes() []change {
	return []change{
		{"add", "ROLE=PUBLIC.pem", "add a key; with ,FROM or ,FROM,UNTIL after it good from that epoch, until before the other; may be repeated", addKey},
		{"end", "ID=EPOCH", "the first epoch at which a key is good no longer; may be repeated", endKey},
		{"drop", "ID", "take a key out; may be repeated", dropKey},
		{"threshold", "ROLE=N", "how many keys of a role have to sign; may be repeated", setThreshold},
	}
}

// rotating are the flags of rotate; the changes in the order in which they were given.
type rotating struct {
	from, out string
	todo      []func(*trust.KeySet) error
}

func rotateCommand() *cobra.Command {
	r := new(rotating)
	c := &cobra.Command{
		Use: "rotate --out ENVELOPE", Short: "make the next key set, or the first one", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		Long: `The next key set, or without --set the first one, as an envelope without signatures, to
be signed by the root keys of both.

` + about,
		Example: `  fulmar key rotate --add root=root-1.pub --add root=root-2.pub \
    --threshold root=2 --out keyset-1.json
  fulmar key rotate --set keyset-1.json --drop 5f1c02ab \
    --add root=root-3.pub --out keyset-2.json`,
		RunE: func(c *cobra.Command, _ []string) error { return r.run(c.OutOrStdout()) },
	}
	c.Flags().StringVar(&r.from, "set", "", "the key set in force")
	c.Flags().StringVar(&r.out, "out", "", "the new envelope")
	for _, k := range changes() {
		c.Flags().Func(k.flag, k.help, func(v string) error {
			r.todo = append(r.todo, func(s *trust.KeySet) error {
				if err := k.do(s, v); err != nil {
					return fmt.Errorf("--%s %s: %w", k.flag, v, err)
				}
				return nil
			})
			return nil
		})
		cli.Takes(c, k.flag, k.value)
	}
	cli.File(c, "set")
	cli.File(c, "out")
	return c
}

// run writes the next key set as an envelope without signatures.
func (r *rotating) run(stdout io.Writer) error {
	if r.out == "" || len(r.todo) == 0 {
		return fmt.Errorf("%w: fulmar key rotate wants --out and at least one change", cli.ErrUsage)
	}
	if _, err := os.Lstat(r.out); !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Exists, "%s is there already; choose another file", r.out)
	}
	next := &trust.KeySet{Version: 1, Thresholds: map[trust.Role]int{}}
	if r.from != "" {
		old, err := OpenSet(r.from, "")
		if err != nil {
			return err
		}
		next.Version, next.Keys, next.Thresholds = old.Version+1, slices.Clone(old.Keys), maps.Clone(old.Thresholds)
	}
	for _, do := range r.todo {
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
	if err := writeEnvelope(r.out, e); err != nil {
		return err
	}
	describe(stdout, e)
	fmt.Fprintf(stdout, "%s holds it without a signature\nnext: fulmar key sign KEY %s, with enough root keys of the set in force and of this one\n", r.out, r.out)
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
