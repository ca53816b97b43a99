// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package usercommand gives a board commands of its user's: a manifest says what a command
// is called and takes, and which program does it. Package child bounds the program.
//
// # The manifest
//
// One YAML file for each, NAME.yaml, in one folder; see [Manifest]. It and the program, and
// the folders above both, belong to root or to fulmard's user and are writable by nobody
// else: whoever could change them could give commands that nobody signed.
//
// # The program
//
// It gets one JSON object on standard input:
//
//	{"ask": "do", "command": "flush-filter", "id": "…32 hex digits…", "actor": "local/anna",
//	 "again": false, "args": {"seconds": 5}}
//
// and answers with one JSON object on standard output, or with nothing. Exit code 0 is
// done; any other is failed, with the end of standard error as the reason. again is true
// where the board died while it ran before.
//
// Where the manifest says so, it is asked after such a death whether its effect is there:
// "ask" is then "happened", and it answers {"happened": true, "value": {…}}.
package usercommand
