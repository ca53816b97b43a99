// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/release/cut"
	"fulmar/cmd/fulmar/release/source"
	"fulmar/internal/cli"
)

func createCommand() *cobra.Command {
	k := new(cut.Options)
	c := &cobra.Command{
		Use: "create --release NAME --epoch N --component PART --out DIR", Short: "cut a release out of folders of files", Args: cli.Words(), ValidArgsFunction: cli.Nothing,
		Long: `A new folder with the manifest to be signed and all that it names: each file, packed by
zstd, and for boards that run a release that --from names, as a patch.

PART      COMPONENT=PATH@VERSION: the folder or file that it is, its version
--needs   KEY is arch, board, l4t_min, l4t_max, tensorrt, space, or a component
          with the least version of it
--health  KEY is within, hold, rate or checks; checks are process, link, drain,
          golden, rate, throttle and boot, with + between them

The epoch is the one of the release before, but where boards must never go back
behind this one.

` + about,
		Example: `  fulmar release create --release 1.9.0 --epoch 3 \
    --component agent=build/agent@1.9.0 --needs agent:arch=arm64,l4t_min=35.4.1 \
    --from releases/1.8.2 --from releases/1.8.1 --out releases/1.9.0
  fulmar release create --release parcels-7 --epoch 3 \
    --component model/parcels=models/parcels@7 \
    --needs model/parcels:agent=1.8,board='NVIDIA Jetson Orin' \
    --health model/parcels:within=15m,hold=2m,rate=0.9 --out releases/parcels-7`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			if k.Name == "" || !c.Flags().Changed("epoch") || len(k.Parts) == 0 || k.Out == "" {
				return fmt.Errorf("%w: fulmar release create wants --release, --epoch, --out and at least one --component", cli.ErrUsage)
			}
			k.Say = source.NewProgress(c.ErrOrStderr())
			s, err := cut.Run(ctx, k)
			if err != nil {
				return err
			}
			if err := picture(c.OutOrStdout(), s, nil); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "next: fulmar release sign KEY %s, or carry %s to where the key is\n", k.Out, filepath.Join(k.Out, source.ManifestFile))
			return nil
		},
	}
	fl := c.Flags()
	fl.StringVar(&k.Name, "release", "", "its name, as rollouts call it")
	fl.Uint64Var(&k.Epoch, "epoch", 0, "boards that have run it install no release of a lower epoch again")
	fl.StringVar(&k.Notes, "notes", "", "a few words for people, at most 2,048 bytes")
	fl.StringArrayVar(&k.Parts, "component", nil, "a component, the folder or file that it is, its version; may be repeated")
	fl.StringArrayVar(&k.Needs, "needs", nil, "what boards must have for a component; may be repeated")
	fl.StringArrayVar(&k.Health, "health", nil, "how a component proves itself on trial; may be repeated")
	fl.StringArrayVar(&k.From, "from", nil, "an earlier release, for patches; at most seven, may be repeated")
	fl.StringArrayVar(&k.Pack, "pack", nil, "put the small files of a component into one; models are packed anyway")
	fl.StringVar(&k.Out, "out", "", "the new folder")
	for flag, value := range map[string]string{
		"release": "NAME", "epoch": "N", "notes": "TEXT", "component": "PART", "needs": "COMPONENT:KEY=VALUE,...", "health": "COMPONENT:KEY=VALUE,...", "pack": "COMPONENT",
	} {
		cli.Takes(c, flag, value)
	}
	cli.Folder(c, "from")
	cli.Folder(c, "out")
	return c
}
