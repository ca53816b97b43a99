// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package camera gives frames: from a folder of pictures, or drawn by a scene
// generator that knows the truth of what it drew.
//
// A [Source] belongs to one goroutine. It is paced: Next waits for the moment of
// the next frame, and when its caller was slow it takes the frame of now and not
// those of the past, as a real camera would. A [Frame] may be handed to other
// goroutines; whoever has it last calls Release.
package camera
