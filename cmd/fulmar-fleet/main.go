// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command fulmar-fleet is the fleet's server and its keeper's tools.
//
//	fulmar-fleet serve [--config FILE] [--data DIR] [--listen HOST:PORT] [--mqtt HOST:PORT] [--host NAME,...]
//	fulmar-fleet token [--data DIR] [--boards N | --board NAME] [--for 1h] [--address HOST:PORT]
//	fulmar-fleet api-token [--data DIR] [--scope read|admin] [--for 1h]
//	fulmar-fleet reset-password [--data DIR]
//	fulmar-fleet ca show|init|next|csr|install|switch|drop
//	fulmar-fleet backup --out FILE [--data DIR] [--config FILE] [--recovery-key PUBLIC.pem] [--no-pictures]
//	fulmar-fleet restore --from FILE [--data DIR] [--recovery-key PRIVATE.pem]
//	fulmar-fleet pin [--data DIR]
//	fulmar-fleet pending [--data DIR] [--json]
//	fulmar-fleet approve ID|BOARD [--data DIR] [--fingerprint HEX]
//	fulmar-fleet refuse ID|BOARD [--data DIR]
//	fulmar-fleet revoke BOARD [--data DIR] [--why TEXT]
//	fulmar-fleet audit [--data DIR] [--json] [--verify] [--head SEQ:HASH]
//
// The tools work on the data folder while the server runs; whoever may read the
// folder may use them. Secrets go to standard output, all talk to standard error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fulmar/fleet"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/internal/sdnotify"
	"fulmar/schema"
)

const usage = `fulmar-fleet serve | token | api-token | reset-password | ca | backup | restore
fulmar-fleet pin | pending | approve ID|BOARD | refuse ID|BOARD | revoke BOARD | audit   (each with -h)`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "fulmar-fleet: %v\n", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage")

// release is set by the linker.
var release = "dev"

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	fs := flag.NewFlagSet("fulmar-fleet "+args[0], flag.ContinueOnError)
	data := fs.String("data", fleet.Default().Data, "folder of databases, keys and pictures")
	switch args[0] {
	case "serve":
		return serve(ctx, fs, data, args[1:])
	case "ca":
		return authority(ctx, data, args[1:])
	case "backup":
		return backupTo(ctx, fs, data, args[1:])
	case "restore":
		return restoreFrom(ctx, fs, data, args[1:])
	case "token":
		return token(ctx, fs, data, args[1:])
	case "api-token":
		scope := fs.String("scope", "read", "read or admin")
		life := fs.Duration("for", time.Hour, "how long it is good for")
		return tool(fs, data, args[1:], func(reg *registry.Registry) error {
			t, err := reg.NewAPIToken(ctx, registry.DefaultTenant, registry.Scope(*scope), *life)
			if err != nil {
				return err
			}
			fmt.Println(t)
			fmt.Fprintf(os.Stderr, "API token of scope %s, good for %v, shown this once\n", *scope, *life)
			return nil
		})
	case "reset-password":
		return tool(fs, data, args[1:], func(reg *registry.Registry) error {
			pw, err := reg.ResetAdmin(ctx)
			if err != nil {
				return err
			}
			fmt.Println(pw)
			fmt.Fprintln(os.Stderr, "one-time password of the administrator; all sessions have ended")
			return nil
		})
	}
	if known, err := keep(ctx, fs, data, args[0], args[1:], os.Stdout, os.Stderr); known {
		return err
	}
	return errUsage
}

// tool opens the registry of the data folder for one command.
func tool(fs *flag.FlagSet, data *string, args []string, do func(*registry.Registry) error) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return errUsage
	}
	if _, err := os.Stat(filepath.Join(*data, "registry.db")); err != nil {
		return fmt.Errorf("open data folder %s: no fleet was ever served from it; start `fulmar-fleet serve --data %s` first", *data, *data)
	}
	reg, err := registry.Open(*data)
	if err != nil {
		return err
	}
	return errors.Join(do(reg), reg.Close())
}

func token(ctx context.Context, fs *flag.FlagSet, data *string, args []string) error {
	boards := fs.Int("boards", 1, "how many boards may enrol with it")
	board := fs.String("board", "", "only for this board, which may be enrolled already")
	life := fs.Duration("for", time.Hour, "how long it is good for")
	address := fs.String("address", "", "HOST:PORT by which boards reach the fleet; default as the server was last told (hosts, listen)")
	return tool(fs, data, args, func(reg *registry.Registry) error {
		pin, err := ca.Pin(filepath.Join(*data, "ca"))
		if err != nil {
			return err
		}
		at, err := tokenAddress(*data, *address, os.Stderr)
		if err != nil {
			return err
		}
		secret, err := reg.NewJoinToken(ctx, registry.DefaultTenant, *board, *boards, *life)
		if err != nil {
			return err
		}
		fmt.Println(schema.JoinToken{Secret: secret, CAHash: pin, Address: at})
		fmt.Fprintf(os.Stderr, "join token, good for %v, shown this once; on the board type sudo fulmar enrol and paste it when it asks\n", *life)
		return nil
	})
}

func serve(ctx context.Context, fs *flag.FlagSet, data *string, args []string) error {
	cfg := fleet.Default()
	config := fs.String("config", "", "YAML file; flags win over it")
	listen := fs.String("listen", cfg.Listen, "address of page, API and enrolment")
	mqtt := fs.String("mqtt", cfg.MQTT, "address boards connect to")
	hosts := fs.String("host", "", "names and addresses the server is reached by, with commas")
	level := fs.String("log", "info", "debug, info, warn or error")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return errUsage
	}
	if *config != "" {
		if err := fleet.Load(*config, &cfg); err != nil {
			return err
		}
	}
	fs.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "data":
			cfg.Data = *data
		case "listen":
			cfg.Listen = *listen
		case "mqtt":
			cfg.MQTT = *mqtt
		case "host":
			cfg.Hosts = strings.Split(*hosts, ",")
		}
	})
	abs, err := filepath.Abs(cfg.Data)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	cfg.Data, cfg.Release = abs, release
	var lvl slog.Level
	if err := lvl.UnmarshalText([]byte(*level)); err != nil {
		return fmt.Errorf("--log %s: wants debug, info, warn or error", *level)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: lvl}))
	srv, err := fleet.New(cfg, func(pw string) {
		fmt.Printf("one-time password of the administrator, shown this once: %s\n", pw)
	}, log)
	if err != nil {
		return err
	}
	fmt.Printf("the page: https://%s\n", srv.HTTPSAddr())
	systemd, err := sdnotify.FromEnv()
	if err == nil {
		// The listeners are open: who comes before Run waits in their queues.
		err = systemd.Ready()
	}
	context.AfterFunc(ctx, func() { _ = systemd.Stopping() }) // only words for systemctl
	if err != nil {
		log.Warn("systemd is not told", "err", err)
	}
	return srv.Run(ctx)
}
