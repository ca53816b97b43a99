// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"fulmar/tests/local"
)

// next is the version that a person is shown to bring over the air: the first that was not
// cut in this folder yet, 2.0 at the beginning.
func next(site *local.Site) string {
	for i := 2; ; i++ {
		v := fmt.Sprintf("%d.0", i)
		if _, err := os.Lstat(filepath.Join(site.Dir, "release-"+v)); err != nil {
			return v
		}
	}
}

// startBoard starts the board out of slots, so that it can update itself.
func startBoard(site *local.Site, config string) (*local.Kept, error) {
	version, err := site.Version()
	if err != nil {
		return nil, err
	}
	did, err := site.Seed(board, version)
	if err != nil {
		return nil, err
	}
	fmt.Printf("\n  %s: %s\n", board, did)
	return site.KeepBoard(board, config, func(what string) { fmt.Printf("\n  %s\n\n", what) })
}

// updates says how to bring the board to another version, in commands that work as they
// stand where make was typed. refused is why the fleet takes no release of this folder's key.
func updates(site *local.Site, refused error) error {
	if refused != nil {
		fmt.Printf("  releases signed with %s are not taken (docs/keys.md): %v\n\n", near(site.ReleaseKey()), refused)
		return nil
	}
	desk, err := site.Desk()
	if err != nil {
		return err
	}
	fmt.Println(strings.NewReplacer("DESK", near(desk), "DIR", near(site.Dir), "KEY", near(site.ReleaseKey()), "NEXT", next(site)).Replace(`
  an update, in another terminal in this folder (docs/releases.md and docs/rollouts.md have all of it):

    . DESK
    CGO_ENABLED=0 go build -ldflags '-s -w -X main.release=NEXT' -o DIR/NEXT/fulmard ./cmd/fulmard
    bin/fulmar release create --release NEXT --epoch 1 --component agent=DIR/NEXT@NEXT --health agent:within=90s,hold=10s --out DIR/release-NEXT
    bin/fulmar release sign file:KEY DIR/release-NEXT
    bin/fulmar release upload DIR/release-NEXT
    ID=$(bin/fulmar rollout create --component agent --release NEXT --wave 100%/30s -o name)
    bin/fulmar rollout start $ID --watch

  make run keeps NEXT from then on; rm -r DIR begins anew with what was built
`))
	return nil
}

// near is a path as seen from here, beginning with what tells a shell that it is one.
func near(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(here, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return path
	}
	return "./" + rel
}
