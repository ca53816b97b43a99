// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fault

// How a command to boards can end otherwise than done on all of them.
const (
	CommandNotDone Code = "FLT0901"
	CommandUnknown Code = "FLT0902"
	CommandWaits   Code = "FLT0903"
)

func commandRows() []Row {
	return []Row{
		{
			Code: CommandNotDone, What: "the command was not done on every board",
			Why: "Boards refused it or failed at it, its time was over before they could begin it, or it was cancelled. The table says which, and why.",
			Do:  "fulmar command show ID tells each board's reason; give it again to those boards",
		},
		{
			Code: CommandUnknown, What: "on some boards nobody knows whether the command had its effect", Exit: ExitAway,
			Why: "A board lost its power while it was at it and cannot tell, was silent for 7 days, or this fleet came from a backup.",
			Do:  "look at what the command should have done on those boards before you give it again", Told: true,
		},
		{
			Code: CommandWaits, What: "the command waits for a second person", Exit: ExitWaits,
			Why: "Its name is among commands.approve of the fleet's config. It waits for an hour, and its own time begins when somebody agrees.",
			Do:  "somebody else, with the right commands:approve: fulmar command approve", Told: true,
		},
	}
}
