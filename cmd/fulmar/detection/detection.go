// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package detection has the commands of fulmar about what the boards of a fleet see.
package detection

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
)

// one is a detection as the API tells it, as far as a table shows it.
type one struct {
	ID    string    `json:"id"`
	Board string    `json:"board"`
	At    time.Time `json:"at"`
	Event struct {
		Source string `json:"source"`
		Model  string `json:"model"`
		Boxes  []struct {
			Class uint16  `json:"class"`
			Score float64 `json:"score"`
		} `json:"boxes"`
		Labels map[uint16]string `json:"labels"`
	} `json:"event"`
	HasPicture bool `json:"has_picture"`

	raw json.RawMessage
}

// UnmarshalJSON keeps what the API said as a whole, for -o json.
func (o *one) UnmarshalJSON(b []byte) error {
	type plain one
	if err := json.Unmarshal(b, (*plain)(o)); err != nil {
		return err
	}
	o.raw = append(o.raw[:0], b...)
	return nil
}

// MarshalJSON gives it back.
func (o one) MarshalJSON() ([]byte, error) { return o.raw, nil }

// Command is fulmar detection.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "detection", Short: "what the boards of a fleet see", Long: remote.About})
	f := new(remote.Flags)
	f.Register(c)
	var board, camera, query string
	var limit int
	var pictures bool
	list := remote.Command(f, true, &cobra.Command{
		Use: "list", Short: "what was seen, newest first", Args: cli.Words(),
		Example: "  fulmar detection list --board dock-17 --limit 20\n  fulmar detection list -o json | jq '.[].event.Boxes'",
	}, func(ctx context.Context, k *remote.Call) error {
		q := url.Values{"limit": {strconv.Itoa(limit)}}
		for name, v := range map[string]string{"board": board, "camera": camera, "q": query} {
			if v != "" {
				q.Set(name, v)
			}
		}
		if pictures {
			q.Set("pictures", "1")
		}
		return write(ctx, k, q)
	})
	list.Flags().StringVar(&board, "board", "", "of this board")
	list.Flags().StringVarP(&query, "query", "q", "", "of boards that it matches")
	cli.Takes(list, "query", "QUERY")
	list.Flags().StringVar(&camera, "camera", "", "of this camera")
	list.Flags().IntVar(&limit, "limit", 50, "at most so many, up to 200")
	list.Flags().BoolVar(&pictures, "pictures", false, "only those with a picture")
	cli.Takes(list, "limit", "N")
	picture := remote.Command(f, false, &cobra.Command{
		Use: "picture ID FILE", Short: "fetch the picture of a detection", Args: cli.Words("an ID", "a FILE"),
		Example: "  fulmar detection picture dock-17/event/3f0c61a2b94de805/421 crate.jpg",
	}, fetch)
	c.AddCommand(list, picture)
	return c
}

func write(ctx context.Context, k *remote.Call, q url.Values) error {
	var reply struct {
		Detections []one `json:"detections"`
	}
	if err := k.Get(ctx, "/api/v1/detections", q, &reply); err != nil {
		return err
	}
	type col = show.Column[one]
	return show.Rows(k.Stdout, &k.Format, reply.Detections,
		col{Name: "id", Of: func(d one) string { return d.ID }},
		col{Name: "at", Of: func(d one) string { return show.At(d.At) }},
		col{Name: "camera", Of: func(d one) string { return d.Event.Source }},
		col{Name: "model", Wide: true, Of: func(d one) string { return d.Event.Model }},
		col{Name: "picture", Wide: true, Of: func(d one) string { return strconv.FormatBool(d.HasPicture) }},
		col{Name: "sees", Of: func(d one) string {
			var sees []string
			for _, b := range d.Event.Boxes {
				sees = append(sees, fmt.Sprintf("%s %.0f %%", cmp.Or(d.Event.Labels[b.Class], fmt.Sprintf("class %d", b.Class)), 100*b.Score))
			}
			return strings.Join(sees, ", ")
		}},
	)
}

func fetch(ctx context.Context, k *remote.Call) error {
	id, path := k.Words[0], k.Words[1]
	levels := strings.Split(id, "/")
	if len(levels) != 4 {
		return fmt.Errorf("%w: %q is no ID of a detection: board/class/epoch/number, as fulmar detection list shows them", cli.ErrUsage, id)
	}
	for i := range levels {
		levels[i] = url.PathEscape(levels[i])
	}
	var jpeg []byte
	if err := k.Get(ctx, "/api/v1/detections/"+strings.Join(levels, "/")+"/picture", nil, &jpeg); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		return fault.New(fault.Exists, "%s is there already", path)
	}
	if err != nil {
		return fmt.Errorf("write picture: %w", err)
	}
	_, err = f.Write(jpeg)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write picture: %w", err)
	}
	fmt.Fprintf(k.Stderr, "%s: %d bytes; its boxes are in fulmar detection list -o json, never in the picture\n", path, len(jpeg))
	return nil
}
