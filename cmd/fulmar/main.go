// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command fulmar is for the person at a desk: it reads the spool of a board that
// does not run any more, and makes the recovery key with which that is possible
// though the spool is encrypted. It changes nothing that it reads. It tells a fleet
// which boards to let in and which to shut out. On a board it says what models can
// run on, and what its TPM can prove.
//
//	fulmar spool inspect DIR      what is there
//	fulmar spool verify DIR       read every record; say what is wrong
//	fulmar spool export DIR       the records, as JSON lines or CSV
//	fulmar recovery new --out DIR make the fleet's recovery key
//	fulmar recovery id FILE       which recovery key a file is
//	fulmar key new|public|sign|verify|rotate
//	                              signing keys and key sets: fulmar key help
//	fulmar board list             the boards of a fleet, and those that ask to join
//	fulmar board approve BOARD    and refuse, revoke, wipe
//	fulmar tpm info               what a board's TPM is and can prove
//	fulmar tpm test               each thing once that a board needs of it
//	fulmar enrol                  bring this board into a fleet
//	fulmar doctor                 what is good on this board, what is not, and what to do
//	fulmar version
//	fulmar help
//
// Exit codes: 0 all is well, 1 something is wrong and stands on standard error, 2
// wrong usage, 6 the fleet did not answer: what was asked may have been done or not.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"fulmar/cmd/fulmar/board"
	"fulmar/cmd/fulmar/doctor"
	"fulmar/cmd/fulmar/key"
	"fulmar/storage/salvage"
	"fulmar/storage/vault"
)

// release is set by the linker.
var release = "dev"

const usage = `usage:
  fulmar spool inspect DIR [KEY]        what a spool folder holds, class by class
  fulmar spool verify  DIR [KEY]        read every record; exit 1 and say what is wrong
  fulmar spool export  DIR [KEY] [--format jsonl|csv] [--class CLASS] [--all] [--out FILE]
                                        the records that the fleet has not acknowledged
  fulmar recovery new --out DIR         make a recovery key: do this offline, once
  fulmar recovery id FILE               tell which recovery key a file is
  fulmar tpm info [--path P] [--json]   what this board's TPM is, and what it can prove
  fulmar tpm test [--path P]            do each thing once that a board needs, with times; exit 1
                                        and say what to do if one fails
  fulmar enrol [TOKEN|-] [--board NAME] [--fleet HOST:PORT] [--pin PIN] [--again] [--timeout 60s] [--config FILE] [--json]
                                        bring this board into a fleet, as root; asks for the token. On the command
                                        line it would stand in the shell's history: - reads it from standard input.
                                        Exit 6: the fleet does not answer, 21: a person has to let the board in
  fulmar doctor [--json] [--root DIR] [--config FILE] [--timeout 20s]
                                        what on this board is good and what is not, and what to do; exit 1 if
                                        something is bad. --root reads another board's disk
` + key.Usage + board.Usage + `  fulmar version
  fulmar help

DIR is the folder "spool" of a board's state, on its disk or in a copy of it; a
read-only mount will do. Nothing in it is changed.

KEY opens an encrypted spool, and is one of
  --recovery-key FILE   the private half that fulmar recovery new made
  --key FILE            the key file of the board

P is the TPM: /dev/tpmrm0 if not given, or unix:/path or tcp:host:port of a software
TPM. If there is no storage root key in it one is made, which stays; nothing else does.

export options
  --format jsonl|csv    jsonl (default): one record a line, of all kinds
                        csv: metrics only; time, series, value, quality, min, max, count
  --class CLASS         alarm, event, metric or snapshot; default all (csv: metric)
  --all                 also the records that the fleet has acknowledged
  --out FILE            a new file instead of standard output
` + board.Options

const (
	exitGood  = 0
	exitWrong = 1
	exitUsage = 2
	exitAway  = 6 // the fleet did not answer
)

func main() {
	os.Exit(fulmar(os.Args[1:], os.Stdout, os.Stderr))
}

// fulmar runs one command and gives its exit code.
func fulmar(args []string, stdout, stderr io.Writer) int {
	word := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	var err error
	switch {
	case word(0) == "spool" && word(1) == "inspect":
		err = inspect(args[2:], stdout, stderr)
	case word(0) == "spool" && word(1) == "verify":
		err = verify(args[2:], stdout, stderr)
	case word(0) == "spool" && word(1) == "export":
		err = export(args[2:], stdout, stderr)
	case word(0) == "recovery" && word(1) == "new":
		err = recoveryNew(args[2:], stdout)
	case word(0) == "recovery" && word(1) == "id" && len(args) == 3:
		err = recoveryID(args[2], stdout)
	case word(0) == "key":
		err = key.Command(args[1:], stdout, stderr)
	case word(0) == "tpm" && word(1) == "info":
		err = tpmInfo(args[2:], stdout)
	case word(0) == "tpm" && word(1) == "test":
		err = tpmTest(args[2:], stdout)
	case word(0) == "doctor":
		if err = examineBoard(args[1:], stdout, stderr); errors.Is(err, doctor.ErrBad) {
			return exitWrong // it was said
		}
	case word(0) == "enrol":
		code, err := enrolBoard(args[1:], stdout, stderr)
		if err != nil {
			fmt.Fprintf(stderr, "fulmar: %v\n", err)
		}
		return code
	case word(0) == "board":
		err = board.Run(args[1:], stdout, stderr)
	case word(0) == "version" && len(args) == 1:
		fmt.Fprintln(stdout, "fulmar", release)
	case len(args) == 1 && (word(0) == "help" || word(0) == "-h" || word(0) == "--help"):
		fmt.Fprint(stdout, usage)
	default:
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	switch {
	case err == nil:
		return exitGood
	case errors.Is(err, errUsage), errors.Is(err, board.ErrUsage), errors.Is(err, key.ErrUsage):
		fmt.Fprintf(stderr, "fulmar: %v\nfulmar help tells the usage\n", err)
		return exitUsage
	case errors.Is(err, board.ErrUnreachable):
		fmt.Fprintf(stderr, "fulmar: %v\n", err)
		return exitAway
	}
	fmt.Fprintf(stderr, "fulmar: %v\n", err)
	return exitWrong
}

var errUsage = errors.New("wrong usage")

// spoolFlags are what the commands on a spool have in common.
type spoolFlags struct {
	*flag.FlagSet
	recovery, key string
	dir           string
}

func newSpoolFlags(name string) *spoolFlags {
	f := &spoolFlags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.SetOutput(io.Discard)
	f.StringVar(&f.recovery, "recovery-key", "", "")
	f.StringVar(&f.key, "key", "", "")
	return f
}

// parse takes flags before and after DIR.
func (f *spoolFlags) parse(args []string) error {
	for len(args) > 0 {
		if err := f.FlagSet.Parse(args); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		if args = f.Args(); len(args) == 0 {
			break
		}
		if f.dir != "" {
			return fmt.Errorf("%w: one folder, not also %q", errUsage, args[0])
		}
		f.dir, args = args[0], args[1:]
	}
	switch {
	case f.dir == "":
		return fmt.Errorf("%w: which folder?", errUsage)
	case f.recovery != "" && f.key != "":
		return fmt.Errorf("%w: --recovery-key or --key, not both", errUsage)
	}
	return nil
}

// open opens the spool with the key that was given, and tells of what holds for all
// that is read from it.
func (f *spoolFlags) open(stderr io.Writer) (*salvage.Spool, error) {
	var a salvage.Access
	if f.recovery != "" {
		k, err := vault.ReadRecoveryKey(f.recovery)
		if err != nil {
			return nil, err
		}
		a.Recovery = k
	}
	if f.key != "" {
		h, err := vault.ReadKeyFile(f.key)
		if err != nil {
			return nil, err
		}
		a.Holder = h
	}
	s, err := salvage.Open(f.dir, a)
	if err != nil {
		return nil, err
	}
	if s.InUse {
		fmt.Fprintf(stderr, "fulmar: %s is in use by a running fulmard: what it writes now may read as damaged; copy the folder or stop fulmard for a sound answer\n", f.dir)
	}
	return s, nil
}
