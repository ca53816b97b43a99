// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fault

// The codes of what a board itself says, at its own socket, and of how commands end.
const (
	BoardAway   Code = "FLT0801"
	BoardClosed Code = "FLT0802"
	NoRight     Code = "FLT0803"
	CmdRefused  Code = "FLT0804"
	CmdFailed   Code = "FLT0805"
	CmdExpired  Code = "FLT0806"
	CmdEnded    Code = "FLT0807"
	CmdUnknown  Code = "FLT0808"
	KeyRefused  Code = "FLT0809"
	NotOnBoard  Code = "FLT0810"
	BoardSays   Code = "FLT0811"
	NotReady    Code = "FLT0812"
	OtherSocket Code = "FLT0813"

	UpdateFailed Code = "FLT0814"
	UpdateGoesOn Code = "FLT0815"
)

// The exit codes of commands to boards, the same from a desk and at the board.
const (
	ExitRefused   = 22 // never begun, and why is told
	ExitFailed    = 23 // begun, and it did not
	ExitExpired   = 24 // never begun: too old
	ExitCancelled = 25 // by a person, or for a safety shutdown
)

func onboardRows() []Row {
	return []Row{
		{
			Code: BoardAway, What: "no answer from the board", Exit: ExitAway,
			Why: "No fulmard listens at its local socket, or it ended while it was asked. A command may have been done or not.",
			Do:  "systemctl status fulmard; then fulmar local log tells what was done. --socket names another socket",
		},
		{
			Code: BoardClosed, What: "the board's socket may not be opened by this user", Exit: ExitDenied,
			Why: "Its folder and the socket are of the group fulmar.",
			Do:  "sudo, or have an administrator add the user: usermod -aG fulmar USER, and log in anew",
		},
		{
			Code: NoRight, What: "this user may not do that on the board", Exit: ExitDenied,
			Why: "The user is not among local.operators (or local.viewers) of fulmard's config, or was added after this login.",
			Do:  "have an administrator add the user to the group fulmar-operators, and log in anew; or use --key with a key of role operator",
		},
		{
			Code: CmdRefused, What: "the board refused the command", Exit: ExitRefused, Told: true,
			Why: "It was never begun. The word in the message says why: a value out of range, an interlock, a safety shutdown, the policy of a board that is alone, a full queue.",
			Do:  "fulmar local status shows outputs and safety; --check asks without doing anything",
		},
		{
			Code: CmdFailed, What: "the command failed", Exit: ExitFailed, Told: true,
			Why: "It was begun, and its handler or the output says that it did not, or not in time.",
			Do:  "fulmar local status shows what the outputs say now",
		},
		{
			Code: CmdExpired, What: "the command became too old", Exit: ExitExpired, Told: true,
			Why: "It was not begun in time: others were before it, or the board was started anew.",
			Do:  "give it again if it is still wanted",
		},
		{
			Code: CmdEnded, What: "the command was cancelled", Exit: ExitCancelled, Told: true,
			Why: "A person ended it, or a safety shutdown came before it. Part of its effect may be there.",
			Do:  "fulmar local status shows what the outputs say now",
		},
		{
			Code: CmdUnknown, What: "whether the command had its effect is not known", Exit: ExitAway, Told: true,
			Why: "The board died or was cut off while it ran, and its handler cannot ask.",
			Do:  "look at the thing itself, then decide; fulmar local status shows what the outputs say",
		},
		{
			Code: KeyRefused, What: "the key is no operator's on this board", Exit: ExitDenied,
			Why: "The newest key set that reached this board has no such key with the role operator, or the signed challenge was not good any more.",
			Do:  "fulmar-fleet keys show on the server tells the set; a board learns it when it is connected",
		},
		{
			Code: NotOnBoard, What: "the board knows no such thing", Exit: ExitNone,
			Why: "It has no command or key of that name, or remembers no command of that id.",
			Do:  "fulmar local commands, fulmar local twin and fulmar local log show what there is", Told: true,
		},
		{
			Code: BoardSays, What: "the board did not do it",
			Why: "It answered with an error, which stands in the message.",
			Do:  "do what the message says; fulmard's log has more: journalctl -u fulmard",
		},
		{
			Code: NotReady, What: "the board is not that far yet", Exit: ExitConflict,
			Why: "Commands, twin and keys of operators come with the board's name, at its enrolment.",
			Do:  "sudo fulmar enrol, or fulmar doctor",
		},
		{
			Code: OtherSocket, What: "the socket is not fulmard's",
			Why: "The path is a link, or who listens is neither root nor the user that owns the folder. Nothing was asked.",
			Do:  "name the socket in the board's data folder: --socket DATA/local.sock",
		},
	}
}

// updateRows are of what fulmar ota watches.
func updateRows() []Row {
	return []Row{
		{
			Code: UpdateFailed, What: "the update did not come to be on the board", Exit: ExitFailed, Told: true,
			Why: "It was refused, failed, or was on trial and was gone back from; the message says which and why. What ran before runs.",
			Do:  "fulmar ota history -o wide shows the states that it came by",
		},
		{
			Code: UpdateGoesOn, What: "the update was not over when the time to watch was", Exit: ExitTimeout, Told: true,
			Why: "The board goes on by itself: a window, a trial or a slow line takes its time.",
			Do:  "fulmar ota status tells how it stands",
		},
	}
}
