// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package fault has the codes of the errors of fulmar. A code is stable: words may
// become better, a code is never given to another class of errors. One table says
// what each means and what to do; docs/errors.md and fulmar explain are made of it.
package fault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"fulmar/cmd/fulmar/enrol"
	"fulmar/internal/cli"
	"fulmar/storage/salvage"
	"fulmar/storage/vault"
	"fulmar/tpm"
	"fulmar/trust"
	"fulmar/trust/chain"
)

// Code names a class of errors: FLT, the area in two digits, a number in two.
type Code string

// The codes that are given where an error is made. The others are known by the class
// that the error has in the packages that do the work.
const (
	Exists      Code = "FLT0002"
	Faults      Code = "FLT0101"
	Partly      Code = "FLT0102"
	Unreachable Code = "FLT0301"
	Stranger    Code = "FLT0302"
	Token       Code = "FLT0303"
	Denied      Code = "FLT0304"
	NoBoard     Code = "FLT0305"
	Several     Code = "FLT0306"
	OtherBoard  Code = "FLT0307"
	Refused     Code = "FLT0308"
	NotThere    Code = "FLT0309"
	Conflict    Code = "FLT0310"
	Unsettled   Code = "FLT0311"
	Halted      Code = "FLT0312"
	Approval    Code = "FLT0313"
	Waits       Code = "FLT0314"
)

// The exit codes of fulmar, the same for all commands.
const (
	ExitWrong    = 1
	ExitUsage    = 2
	ExitNone     = 3  // what was asked about is not there
	ExitDenied   = 4  // whoever asks may not do that
	ExitConflict = 5  // it changed meanwhile, or its state does not allow it
	ExitAway     = 6  // the fleet gave no answer: what was asked may have been done or not
	ExitHalted   = 20 // a gate has halted the rollout
	ExitWaits    = 21 // a person has to do something first
	ExitTimeout  = 124
)

// Row is what is known of a class of errors.
type Row struct {
	Code Code
	What string // the class, in a few words
	Why  string // what it comes from
	Do   string // what to do
	Exit int
	// Told says that Do stands under the error; else the error has it in its own words.
	Told bool

	class error // an error that wraps this is of the class
}

// Table gives all rows, in the order of their codes.
func Table() []Row {
	rows := append(generalRows(), spoolRows()...)
	rows = append(rows, keyRows()...)
	rows = append(rows, append(boardRows(), rolloutRows()...)...)
	rows = append(rows, tpmRows()...)
	rows = append(rows, releaseRows()...)
	rows = append(rows, enrolRows()...)
	rows = append(rows, auditRows()...)
	rows = append(rows, append(onboardRows(), updateRows()...)...)
	rows = append(rows, commandRows()...)
	rows = append(rows, fleetRows()...)
	for i := range rows {
		if rows[i].Exit == 0 {
			rows[i].Exit = ExitWrong
		}
	}
	return rows
}

func generalRows() []Row {
	return []Row{
		{
			Code: "FLT0001", What: "wrong usage", class: cli.ErrUsage, Exit: ExitUsage,
			Why: "A word or an option is not one of the command, one is missing, or two do not go together. Nothing was done.",
			Do:  "the command with --help tells what it takes, with examples",
		},
		{
			Code: Exists, What: "a file is there already",
			Why: "Keys, envelopes, key sets and exports are never written over: a mistake in a name would cost what cannot be made again.",
			Do:  "give another name, or move the file away if it is not needed",
		},
		{
			Code: "FLT0003", What: "a file or folder is not there", class: fs.ErrNotExist,
			Why: "A path that was given names nothing.",
			Do:  "look at the path in the message; relative ones begin at the present folder",
		},
		{
			Code: "FLT0004", What: "the system does not allow it", class: fs.ErrPermission,
			Why: "The user who runs the command may not read or write the path in the message.",
			Do:  "run it as a user who may: on a board, the spool belongs to the user of fulmard",
		},
		{
			Code: "FLT0005", What: "the disk is full", class: syscall.ENOSPC,
			Why: "What was to be written found no room. A file that is written whole or not at all was not written.",
			Do:  "make room, or write to another disk",
		},
	}
}

func spoolRows() []Row {
	return []Row{
		{
			Code: Faults, What: "the spool has faults",
			Why: "fulmar spool verify read every record and named what is damaged, missing or locked, file by file.",
			Do:  "fulmar spool export takes out all that is sound; locked records want a key",
		},
		{
			Code: Partly, What: "not all could be exported",
			Why: "The spool has faults. What was written is right, and the faults were named.",
			Do:  "keep the folder: fulmar spool verify tells which records are missing; locked ones want --recovery-key or --key",
		},
		{
			Code: "FLT0103", What: "the folder is no spool", class: salvage.ErrNoSpool,
			Why: "It has none of the folders alarm, event, metric and snapshot.",
			Do:  `give the folder "spool" of a board's state: /var/lib/fulmard/spool on a board, or a copy of it`,
		},
		{
			Code: "FLT0104", What: "not a recovery key", class: vault.ErrRecoveryKey,
			Why: "The file is not PEM, is of another kind, or is the other half.",
			Do:  "give the file that fulmar recovery new made: the private half opens spools and backups, the public half goes to boards",
		},
		{
			Code: "FLT0105", What: "a key file is open to others", class: vault.ErrInsecure,
			Why: "Who may read the key file of a board may read its records, so a file that others may read is not used.",
			Do:  "chmod 600 it and make it yours; make a new key if others may have read it",
		},
	}
}

func keyRows() []Row {
	return []Row{
		{
			Code: "FLT0201", What: "not signed by enough keys", class: trust.ErrSignatures,
			Why: "Fewer keys of the role than the key set wants have signed, a key is not good at the epoch, or the key set is not the one of the pin.",
			Do:  "fulmar key sign adds a signature; the message tells which role wants how many",
		},
		{
			Code: "FLT0202", What: "not what it should be by its form", class: trust.ErrMalformed,
			Why: "A file is no envelope, no key set or no key in PEM, or is one of another type than was asked for.",
			Do:  "look whether the right file was named; docs/keys.md tells which file is what",
		},
		{
			Code: "FLT0203", What: "older than what is known", class: trust.ErrRollback,
			Why: "A key set with a lower version than the one in force is not taken, so that nobody puts an old one back.",
			Do:  "make the next key set with fulmar key rotate --set and the one in force",
		},
		{
			Code: "FLT0204", What: "not a reference to a key", class: trust.ErrReference,
			Why: "A key is named by file:PATH or exec:PROGRAM ARGUMENTS, with an absolute path of the program.",
			Do:  "write the key as file:PATH, or see docs/signers for external signers",
		},
		{
			Code: "FLT0205", What: "the external signer failed", class: trust.ErrSigner,
			Why: "The program gave no answer in time, refused, or its signature does not verify. Nothing was signed.",
			Do:  "run the program by hand: docs/signers tells what it is asked and what it has to answer",
		},
	}
}

func boardRows() []Row {
	return []Row{
		{
			Code: Unreachable, What: "no answer from the fleet", Exit: ExitAway,
			Why: "The server does not listen, the network does not lead there, or the answer was cut off. A change may have been made or not.",
			Do:  "is the server on, and --fleet HOST:PORT its page? After a change that got no answer see fulmar board list",
		},
		{
			Code: Stranger, What: "the server is not the fleet that is meant", Exit: ExitAway,
			Why: "Its certificate is not of the authority of --pin, --ca or this system, or not for this name. The token was not sent.",
			Do:  "compare --pin with what fulmar-fleet pin prints on the server, and the name with fulmar-fleet serve --host",
		},
		{
			Code: Token, What: "the token file is of no use",
			Why: "It cannot be read, others may read it, or it holds no API token.",
			Do:  "fulmar-fleet api-token --scope admin on the server prints one; keep it in a file with mode 600",
		},
		{
			Code: Denied, What: "the token does not allow it", Exit: ExitDenied,
			Why: "It has ended or was revoked, or it has not the right that the command needs.",
			Do:  "fulmar token list tells what tokens may do; make one on the page under Settings or on the server with fulmar-fleet api-token", Told: true,
		},
		{
			Code: NoBoard, What: "no such board", Exit: ExitNone,
			Why: "No board of this name or number asks, or is enrolled, as the command wants it.",
			Do:  "fulmar board list shows them",
		},
		{
			Code: Several, What: "more than one board asks for the name",
			Why: "Anybody can ask for a name; only one of them is the board that you know.",
			Do:  "compare the fingerprints with the one in the board's log, and give the number of that one",
		},
		{
			Code: OtherBoard, What: "another board than the one that is meant",
			Why: "The board that asks has another fingerprint than --fingerprint says. Nothing was done.",
			Do:  "look at the fingerprint in the log of the board itself; refuse the other",
		},
		{
			Code: Refused, What: "the fleet refused",
			Why: "The server answered with an error, which stands in the message.",
			Do:  "do what the message says; the server's log has more",
		},
		{
			Code: NotThere, What: "there is no such thing", Exit: ExitNone,
			Why: "The fleet knows nothing of the name or number that was given, or no longer.",
			Do:  "the list command of the same group shows what there is",
		},
		{
			Code: Conflict, What: "it changed meanwhile, or its state does not allow it", Exit: ExitConflict,
			Why: "Somebody else changed it since it was read, or what was asked makes no sense in its present state. Nothing was done.",
			Do:  "look at it again, then decide again",
		},
		{
			Code: Unsettled, What: "not settled in time", Exit: ExitTimeout,
			Why: "The time of --timeout passed first. What was watched goes on without the one who watches.",
			Do:  "look again with the same command, or give it longer",
		},
	}
}

func rolloutRows() []Row {
	return []Row{
		{
			Code: Halted, What: "the rollout is halted", Exit: ExitHalted,
			Why: "A gate found the release bad, or a person stopped it. Boards that wait get nothing more.",
			Do:  "fulmar rollout show tells the reason; then retry, rollback or abort",
		},
		{
			Code: Approval, What: "the rollout waits for a second person", Exit: ExitWaits,
			Why: "It asks for an approval, which nobody gives for what they planned themselves.",
			Do:  "somebody else, with the right rollouts:approve: fulmar rollout approve", Told: true,
		},
		{
			Code: Waits, What: "the rollout waits for a person", Exit: ExitWaits,
			Why: "It was not started yet, was paused, or is held: too few boards have ended for its gate to tell good from bad. Boards that wait get nothing meanwhile.",
			Do:  "fulmar rollout show tells why, with --boards for which; then start, resume, rollback or abort",
		},
	}
}

func tpmRows() []Row {
	row := func(code Code, class error, what, why, do string) Row {
		return Row{Code: code, What: what, Why: why, Do: do, Told: true, class: class}
	}
	return []Row{
		row("FLT0401", tpm.ErrNoTPM, "no TPM at that path", "There is no device, or its driver is not loaded.",
			"is it switched on in the firmware or the device tree, and its driver loaded (tpm_tis_spi, tpm_ftpm_tee)? ls /dev/tpm* shows what there is; a Jetson's comes late in the boot"),
		row("FLT0402", tpm.ErrPermission, "the TPM may not be used by this user", "The device node belongs to root and the group tss.",
			"run as root, or put the user into the group that owns the node (tss)"),
		row("FLT0403", tpm.ErrBusy, "the TPM is in use", "/dev/tpm0 is for one program at a time.",
			"use /dev/tpmrm0, which programs can share; /dev/tpm0 is for one at a time"),
		row("FLT0404", tpm.ErrTimeout, "the TPM does not answer", "The chip or its bus hangs, or it does something long.",
			"try again; if it stays, power the board off and on, then look at the bus"),
		row("FLT0405", tpm.ErrFailure, "the TPM is in failure mode", "Its self test failed.",
			"power the board off and on; a reboot is not enough"),
		row("FLT0406", tpm.ErrAuth, "the TPM refused the authorization", "Somebody set an authorization of the owner.",
			"an owner's authorization is set and fulmar works with an empty one: tpm2_changeauth -c owner -p OLD"),
		row("FLT0407", tpm.ErrLockout, "the TPM is locked out", "Too many wrong authorizations were tried; it opens by itself after a while.",
			"wait; then find the program that guesses: tpm2_getcap properties-variable"),
		row("FLT0408", tpm.ErrNoSpace, "the TPM has no space left", "Its few places for keys and numbers are taken.",
			"another program filled it: tpm2_getcap handles-persistent and handles-nv-index show with what"),
		row("FLT0409", tpm.ErrForeign, "the TPM holds something foreign", "What lies at the place of the storage root key is no such key, or the TPM was cleared.",
			"another program put something else where the storage root key belongs: tpm2_readpublic -c 0x81000001"),
		row("FLT0410", tpm.ErrProtocol, "it is no TPM 2.0", "What answered did not speak as one does.",
			"is there a TPM 2.0 at that path?"),
		row("FLT0411", tpm.ErrGone, "the software TPM is gone", "Its socket does not answer, or closed.",
			"does it run, and does nobody else use its socket?"),
	}
}

func enrolRows() []Row {
	return []Row{
		{
			Code: "FLT0601", What: "no answer from the fleet at enrolment", class: enrol.ErrUnreachable, Exit: ExitAway,
			Why: "The name is not known, nothing listens at the address, or what answered is no fleet. Nothing was changed.",
			Do:  "is the server on, and does the network of the board lead there? The token names the address; --fleet HOST:PORT wins over it",
		},
		{
			Code: "FLT0602", What: "the fleet does not let the board in", class: enrol.ErrRefused,
			Why: "The token has ended or was used, the board was refused or revoked, or its name belongs to another.",
			Do:  "do what the message says; fulmar-fleet token on the server makes another token",
		},
		{
			Code: "FLT0603", What: "a person has to let the board in", class: enrol.ErrWaiting, Exit: ExitWaits,
			Why: "The board has no token that the fleet takes, and asks to join. It goes on by itself as soon as somebody says yes.",
			Do:  "fulmar board approve at a desk, or fulmar-fleet approve on the server, with the fingerprint that the board told",
		},
	}
}

// marked is an error with a code.
type marked struct {
	error
	code Code
}

func (m *marked) Unwrap() error { return m.error }

// Mark gives an error a code. Its text stays as it is.
func Mark(c Code, err error) error { return &marked{err, c} }

// New makes an error with a code.
func New(c Code, format string, args ...any) error { return Mark(c, fmt.Errorf(format, args...)) }

// Is tells whether an error has a code.
func Is(err error, c Code) bool {
	r, ok := Of(err)
	return ok && r.Code == c
}

// Of finds the row of an error: by its code, or by the class that it wraps. The
// general classes come last, an error of a TPM can be one of them as well.
func Of(err error) (Row, bool) {
	rows := Table()
	var m *marked
	if errors.As(err, &m) {
		return Find(m.code)
	}
	general := len(generalRows())
	for _, r := range append(rows[general:], rows[:general]...) {
		if r.class != nil && errors.Is(err, r.class) {
			return r, true
		}
	}
	return Row{}, false
}

// Find gives the row of a code, in large or small letters.
func Find(c Code) (Row, bool) {
	for _, r := range Table() {
		if strings.EqualFold(string(r.Code), string(c)) {
			return r, true
		}
	}
	return Row{}, false
}

// Explain writes a row for a person.
func (r Row) Explain(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s: %s\n  because %s\n  do      %s\n  exit    %d\n", r.Code, r.What, r.Why, r.Do, r.Exit)
	return err
}

func auditRows() []Row {
	return []Row{
		{
			Code: "FLT0701", What: "the audit log was changed", class: chain.ErrBroken,
			Why: "A row does not follow from the one before it, the end is missing, a head is not signed by the key, or a noted head is not in it. The message says which row.",
			Do:  "keep the file and the fleet's data folder as they are; export again, and compare with an older export: the rows before that one are sound",
		},
	}
}
