// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"fulmar/ota/bundle"
	"fulmar/ota/release"
)

// What is wrong with a release, where no class says it.
const (
	NoRelease   Code = "FLT0504"
	Unsigned    Code = "FLT0505"
	TooLarge    Code = "FLT0506"
	NotTaken    Code = "FLT0507"
	ObjectWrong Code = "FLT0508"
)

func releaseRows() []Row {
	return []Row{
		{
			Code: "FLT0501", What: "a manifest that makes no sense", class: release.ErrManifest,
			Why: "A field is unknown or there twice, a name, path or size is one that no board takes, or two things contradict each other. The message says which.",
			Do:  "make the release with fulmar release create, which writes no such manifest; one from elsewhere may be of a newer fulmar",
		},
		{
			Code: "FLT0502", What: "a release of an epoch that has ended", class: release.ErrEpoch,
			Why: "Boards have run a release of a higher epoch, and never go back behind it.",
			Do:  "cut the same files again under the epoch of the newest release: fulmar release create --epoch N",
		},
		{
			Code: "FLT0503", What: "not a bundle of a release", class: bundle.ErrBundle,
			Why: "The file is cut, was made by something else, or holds what its manifest does not name.",
			Do:  "copy it anew, and sync before the stick is pulled out; fulmar release bundle makes one", Told: true,
		},
		{
			Code: NoRelease, What: "not a release",
			Why: "The folder has no manifest.json, or its release.json signs another one.",
			Do:  "name the folder that fulmar release create --out made, or a bundle",
		},
		{
			Code: Unsigned, What: "nobody has signed the release",
			Why: "It has no release.json, so no board and no fleet takes it.",
			Do:  "fulmar release sign KEY RELEASE", Told: true,
		},
		{
			Code: TooLarge, What: "the manifest is larger than a board takes",
			Why: "A manifest goes to boards in one message, with its signatures. It has too many files, or too many ways to bring them.",
			Do:  "put small files into one with --pack, name fewer releases with --from, or cut a release for each component",
		},
		{
			Code: NotTaken, What: "a file that no board would take",
			Why: "Its name, kind or size is not one that a release may have.",
			Do:  "rename it, or take it out of the folder; fulmar release create reads nothing else",
		},
		{
			Code: ObjectWrong, What: "an object is not what the manifest says",
			Why: "A file of the release is missing, was cut or changed, or a packed or patched one did not come out as the file that is signed. Boards would refuse it.",
			Do:  "copy the release anew from where it was made; if it is wrong there too, cut it again", Told: true,
		},
	}
}
