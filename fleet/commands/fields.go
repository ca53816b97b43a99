// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// checkFields holds arguments to what a command takes; nil fields: that is not known.
func checkFields(text json.RawMessage, fields []Field) error {
	if fields == nil {
		return nil
	}
	have := map[string]json.RawMessage{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &have); err != nil {
			return &Error{"/args", "wants a JSON object"}
		}
	}
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
		v, given := have[f.Name]
		if !given && f.Required {
			return &Error{"/args/" + f.Name, "is missing"}
		}
		if given && !fits(v, f.Type) {
			return &Error{"/args/" + f.Name, "wants a value of kind " + f.Type}
		}
	}
	for name := range have {
		if !slices.Contains(names, name) {
			return &Error{"/args", fmt.Sprintf("has a name that the command does not take; it takes %s", strings.Join(names, ", "))}
		}
	}
	return nil
}

func fits(v json.RawMessage, kind string) bool {
	switch kind {
	case "text":
		return json.Unmarshal(v, new(string)) == nil
	case "number":
		return json.Unmarshal(v, new(float64)) == nil
	case "integer":
		return json.Unmarshal(v, new(int64)) == nil
	case "bool":
		return json.Unmarshal(v, new(bool)) == nil
	}
	return true
}
