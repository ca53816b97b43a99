// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
)

// Call is one command about a fleet, under way.
type Call struct {
	*Client
	Format         show.Format
	Words          []string // its arguments
	Stdout, Stderr io.Writer
	// Changed tells which options were given.
	Changed func(flag string) bool
}

// Command makes a command that asks a fleet. rows: it writes something in a form that
// -o chooses. Ctrl-C ends it; its errors begin with its name and arguments.
func Command(shared *Flags, rows bool, c *cobra.Command, do func(context.Context, *Call) error) *cobra.Command {
	k := new(Call)
	c.ValidArgsFunction = cli.Nothing
	if rows {
		k.Format.Register(c)
	}
	c.RunE = func(c *cobra.Command, words []string) (err error) {
		if rows {
			if err := k.Format.Check(c); err != nil {
				return err
			}
		}
		k.Words, k.Stdout, k.Stderr, k.Changed = words, c.OutOrStdout(), c.ErrOrStderr(), c.Flags().Changed
		if k.Client, err = shared.Open(); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := do(ctx, k); err != nil {
			path := strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
			return fmt.Errorf("%s: %w", strings.Join(append([]string{path}, words...), " "), err)
		}
		return nil
	}
	return c
}

// Remove deletes what is at a path.
func (c *Client) Remove(ctx context.Context, path string) error {
	_, err := c.Do(ctx, Request{Method: http.MethodDelete, Path: path}, nil)
	return Unsure(err)
}

// Replace puts a body where etag is what stands there now.
func (c *Client) Replace(ctx context.Context, path, etag string, body, v any) error {
	_, err := c.Do(ctx, Request{Method: http.MethodPut, Path: path, Body: body, IfMatch: etag}, v)
	return Unsure(err)
}
