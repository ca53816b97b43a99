// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/release/source"
	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	rel "fulmar/ota/release"
	"fulmar/schema/rest"
)

const (
	// uploadPart is how much of an object goes in one request: some seconds on a slow
	// line, and what is lost at most when it is cut.
	uploadPart = 8 << 20
	// uploadTries is how often a part is begun anew where the fleet has another offset, or
	// gave no answer.
	uploadTries = 5
	uploadPause = 2 * time.Second
)

func path(name, more string) string { return "/api/v1/releases/" + url.PathEscape(name) + more }

func uploadCommand(f *remote.Flags) *cobra.Command {
	return remote.Command(f, true, &cobra.Command{
		Use: "upload RELEASE", Short: "give a signed release to the fleet; goes on where it was cut", Args: cli.Words("a RELEASE"),
		Long:    "Only what the fleet has not got travels.\n\n" + remote.About,
		Example: "  fulmar release upload releases/1.9.0",
	}, upload)
}

func upload(ctx context.Context, k *remote.Call) error {
	s, err := source.Open(k.Words[0])
	if err != nil {
		return err
	}
	defer s.Close()
	if s.Envelope == nil {
		return fault.New(fault.Unsigned, "%s: nobody has signed it, so no fleet takes it", s.Name)
	}
	if err := s.Index(); err != nil {
		return err
	}
	var r rest.Release
	if err := k.Post(ctx, "/api/v1/releases", rest.ReleaseSpec{Envelope: s.Text}, &r); err != nil {
		return err
	}
	if r.Release != s.Manifest.Release || r.Manifest != s.Hash().String() {
		return fault.New(fault.Refused, "the fleet answered of release %s (%.16s), and this is %s (%.16s)", r.Release, r.Manifest, s.Manifest.Release, s.Hash())
	}
	named := map[string]rel.Object{}
	for _, o := range allObjects(s) {
		named[o.Tree.String()] = o
	}
	say := source.NewProgress(k.Stderr)
	var have, all int64
	for _, m := range r.Missing {
		have, all = have+m.Have, all+m.Size
	}
	for _, m := range r.Missing {
		o, ok := named[m.Tree]
		if !ok || m.Size != o.Size {
			return fault.New(fault.Refused, "the fleet misses object %.64s, which the release does not name", m.Tree)
		}
		if err := send(ctx, s, k.Client, o, m.Have, func(n int64) {
			have += n
			say.Step("%s  %d %%  %s of %s", r.Release, 100*have/max(all, 1), source.Size(have), source.Size(all))
		}); err != nil {
			say.Clear()
			return fmt.Errorf("object %.16s: %w\n  do: the same command again goes on from here", m.Tree, err)
		}
	}
	say.Clear()
	if r.State != rest.ReleaseReady {
		if err := k.Post(ctx, path(r.Release, "/complete"), struct{}{}, &r); err != nil {
			return err
		}
	}
	if k.Format.Quiet() {
		return k.Format.One(k.Stdout, r.Release, r)
	}
	fmt.Fprintln(k.Stdout, show.Clean(r.Release))
	fmt.Fprintf(k.Stderr, "release %s is %s at the fleet; %s travelled\nnext: fulmar rollout plan --release %s --component %s\n", show.Clean(r.Release), show.Clean(r.State), source.Size(all), s.Manifest.Release, s.Manifest.Components[0].Name)
	return nil
}

// allObjects are all that the fleet may ask for, also files that a bundle has packed.
func allObjects(s *source.Release) []rel.Object {
	out := s.Objects()
	for i := range s.Manifest.Components {
		for _, f := range s.Manifest.Components[i].Files {
			out = append(out, f.Object)
		}
	}
	return out
}

// send brings the rest of an object, part by part.
func send(ctx context.Context, s *source.Release, c *remote.Client, o rel.Object, have int64, moved func(n int64)) error {
	r, err := s.Object(o)
	if errors.Is(err, source.ErrNoObject) {
		r, err = wholeOf(ctx, s, o)
	}
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	for tries := 0; have < o.Size; {
		n := min(uploadPart, o.Size-have)
		var got rest.ReleaseObject
		_, err := c.Do(ctx, remote.Request{
			Method: http.MethodPut, Path: "/api/v1/objects/" + o.Tree.String(), Query: url.Values{"offset": {strconv.FormatInt(have, 10)}},
			Stream: io.NewSectionReader(r.SectionReader, have, n), Length: n,
		}, &got)
		if err == nil && got.Have == have+n {
			moved(n)
			have, tries = got.Have, 0
			continue
		}
		if err == nil {
			err = fault.New(fault.Refused, "the fleet has %d bytes after %d were sent to it from byte %d on", got.Have, n, have)
		}
		if tries++; tries == uploadTries || !fault.Is(err, fault.Unreachable) && remote.StatusOf(err) != http.StatusConflict {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(uploadPause):
		}
		// Where to go on: the part may have come though its answer did not.
		if aerr := c.Get(ctx, "/api/v1/objects/"+o.Tree.String(), nil, &got); aerr == nil && got.Have >= 0 && got.Have <= o.Size {
			moved(got.Have - have)
			have = got.Have
		}
	}
	return nil
}

// wholeOf gives a file that a bundle has packed.
func wholeOf(ctx context.Context, s *source.Release, o rel.Object) (*source.Object, error) {
	for i := range s.Manifest.Components {
		for j := range s.Manifest.Components[i].Files {
			if f := &s.Manifest.Components[i].Files[j]; f.Tree == o.Tree {
				return s.Whole(ctx, f)
			}
		}
	}
	return nil, source.ErrNoObject
}

func listCommand(f *remote.Flags) *cobra.Command {
	return remote.Command(f, true, &cobra.Command{
		Use: "list", Short: "the releases that the fleet has", Args: cli.Words(), Long: remote.About, Example: "  fulmar release list",
	}, func(ctx context.Context, k *remote.Call) error {
		all, err := remote.Whole[rest.Release](ctx, k.Client, "/api/v1/releases", nil)
		if err != nil {
			return err
		}
		type col = show.Column[rest.Release]
		now := time.Now()
		return show.Rows(k.Stdout, &k.Format, all,
			col{Name: "release", Of: func(r rest.Release) string { return r.Release }},
			col{Name: "state", Of: stateOf},
			col{Name: "epoch", Of: func(r rest.Release) string { return strconv.FormatUint(r.Epoch, 10) }},
			col{Name: "components", Of: componentsOf},
			col{Name: "size", Of: func(r rest.Release) string { return source.Size(r.Bytes) }},
			col{Name: "boards", Of: func(r rest.Release) string { return strconv.Itoa(r.Boards) }},
			col{Name: "came", Of: func(r rest.Release) string { return show.Age(r.Created, now) }},
			col{Name: "by", Wide: true, Of: func(r rest.Release) string { return r.Author }},
			col{Name: "signed by", Wide: true, Of: func(r rest.Release) string { return strings.Join(short(r.Signers), " ") }},
		)
	})
}

func stateOf(r rest.Release) string {
	switch {
	case r.State == rest.ReleaseIncomplete:
		return fmt.Sprintf("%s, %s", r.State, share(r.Have, r.Bytes))
	case !r.Trusted:
		return r.State + ", no longer trusted"
	}
	return r.State
}

func componentsOf(r rest.Release) string {
	var out []string
	for _, c := range r.Components {
		out = append(out, c.Name+" "+c.Version)
	}
	return strings.Join(out, ", ")
}

func showCommand(f *remote.Flags) *cobra.Command {
	return remote.Command(f, true, &cobra.Command{
		Use: "show NAME", Short: "a release at the fleet: what travels to which boards", Args: cli.Words("a NAME"), Long: remote.About, Example: "  fulmar release show 1.9.0",
	}, func(ctx context.Context, k *remote.Call) error {
		var r rest.Release
		if err := k.Get(ctx, path(k.Words[0], ""), nil, &r); err != nil {
			return err
		}
		if k.Format.Quiet() {
			return k.Format.One(k.Stdout, r.Release, r)
		}
		return writeRelease(k.Stdout, &r)
	})
}

func writeRelease(w io.Writer, r *rest.Release) error {
	fmt.Fprintf(w, "release %s, epoch %d: %s\n", show.Clean(r.Release), r.Epoch, show.Clean(stateOf(*r)))
	if r.Notes != "" {
		fmt.Fprintf(w, "  %s\n", show.Clean(r.Notes))
	}
	fmt.Fprintf(w, "  SHA-256 %s, signed by %s\n  brought by %s at %s\n", show.Clean(r.Manifest), show.Clean(strings.Join(short(r.Signers), ", ")), show.Clean(r.Author), show.At(r.Created))
	if len(r.InUse) > 0 {
		fmt.Fprintf(w, "  in use by %s\n", show.Clean(strings.Join(r.InUse, ", ")))
	}
	type row struct {
		c rest.ReleaseComponent
		w rest.ReleaseWay
	}
	var rows []row
	for _, c := range r.Components {
		fmt.Fprintf(w, "%s %s, runs on %d board%s", show.Clean(c.Name), show.Clean(c.Version), c.Boards, map[bool]string{false: "s"}[c.Boards == 1])
		if c.Needs != "" {
			fmt.Fprintf(w, "; needs %s", show.Clean(c.Needs))
		}
		fmt.Fprintln(w)
		for _, v := range c.Ways {
			rows = append(rows, row{c, v})
		}
	}
	fmt.Fprintln(w)
	type col = show.Column[row]
	return show.Rows(w, new(show.Format), rows,
		col{Name: "component", Of: func(r row) string { return r.c.Name }},
		col{Name: "travels", Of: func(r row) string { return r.w.Codec }},
		col{Name: "from", Of: func(r row) string { return r.w.From[:min(len(r.w.From), 16)] }},
		col{Name: "size", Of: func(r row) string { return source.Size(r.w.Bytes) }},
		col{Name: "of all of it", Of: func(r row) string { return bar(r.w.Bytes, r.c.Bytes) + "  " + share(r.w.Bytes, r.c.Bytes) }},
	)
}

func removeCommand(f *remote.Flags) *cobra.Command {
	return remote.Command(f, false, &cobra.Command{
		Use: "remove NAME", Short: "take a release from the fleet, with what no other names", Args: cli.Words("a NAME"),
		Long:    "Boards that run it keep it. A release that a rollout is at work with is not removed.\n\n" + remote.About,
		Example: "  fulmar release remove 1.7.0",
	}, func(ctx context.Context, k *remote.Call) error {
		if err := k.Remove(ctx, path(k.Words[0], "")); err != nil {
			return err
		}
		fmt.Fprintf(k.Stderr, "release %s is removed\n", show.Clean(k.Words[0]))
		return nil
	})
}
