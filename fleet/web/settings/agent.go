// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import "strings"

// browser puts a User-Agent into the words by which a person knows their own: "Firefox on
// Linux". They name others beside themselves, so the order matters: Edge and Opera say
// Chrome, and Chrome says Safari. One that is not known is given as it is.
func browser(agent string) string {
	name := first(agent, "Edg", "Edge", "OPR/", "Opera", "Firefox/", "Firefox", "FxiOS/", "Firefox", "HeadlessChrome/", "Chrome without a window",
		"Chrome/", "Chrome", "CriOS/", "Chrome", "Safari/", "Safari", "curl/", "curl")
	on := first(agent, "Android", "Android", "iPhone", "iPhone", "iPad", "iPad", "Windows", "Windows", "CrOS", "ChromeOS",
		"Mac OS X", "macOS", "Linux", "Linux")
	switch {
	case name == "":
		return agent
	case on == "":
		return name
	}
	return name + " on " + on
}

// first gives the word for the first sign that is there. signs are sign, word, sign, word.
func first(agent string, signs ...string) string {
	for i := 0; i+1 < len(signs); i += 2 {
		if strings.Contains(agent, signs[i]) {
			return signs[i+1]
		}
	}
	return ""
}
