// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package form

// Field is one field as the template draws it.
type Field struct {
	ID, Name, Label, Kind, Value, Hint, Error string
	Options                                   []Option
	Ticked, Required, Wide                    bool
	List                                      string // id of a datalist
	Max                                       int    // characters
}

// Option is one choice of a list.
type Option struct {
	Value, Text string
	Chosen      bool
}

// Describes lists the ids of what explains the field.
func (d Field) Describes() string {
	s := ""
	if d.Error != "" {
		s = d.ID + "-why"
	}
	if d.Hint != "" {
		s += " " + d.ID + "-hint"
	}
	return s
}

func (f *Form) field(kind, name, label, hint string) Field {
	return Field{ID: "f-" + name, Name: name, Label: label, Kind: kind, Value: f.vals.Get(name), Hint: hint, Error: f.errs[name], Max: MaxLine}
}

// Text is a field of one line.
func (f *Form) Text(name, label, hint string) Field { return f.field("text", name, label, hint) }

// Needed is a field of one line that must be filled in.
func (f *Form) Needed(name, label, hint string) Field {
	d := f.field("text", name, label, hint)
	d.Required = true
	return d
}

// Digits is a field for a number.
func (f *Form) Digits(name, label, hint string) Field { return f.field("number", name, label, hint) }

// Day is a field for a day.
func (f *Form) Day(name, label, hint string) Field { return f.field("date", name, label, hint) }

// Clock is a field for a time of day.
func (f *Form) Clock(name, label, hint string) Field { return f.field("time", name, label, hint) }

// Area is a field of many lines.
func (f *Form) Area(name, label, hint string) Field { return f.field("area", name, label, hint) }

// File is a field for a file.
func (f *Form) File(name, label, hint string) Field { return f.field("file", name, label, hint) }

// Password is a field whose value is never given back.
func (f *Form) Password(name, label, hint string) Field {
	d := f.field("password", name, label, hint)
	d.Value = ""
	return d
}

// Tick is a box.
func (f *Form) Tick(name, label, hint string) Field {
	d := f.field("tick", name, label, hint)
	d.Ticked, d.Value = d.Value != "", "1"
	return d
}

// Choose is a list to choose from: value before text.
func (f *Form) Choose(name, label, hint string, pairs ...string) Field {
	d := f.field("choose", name, label, hint)
	for i := 0; i+1 < len(pairs); i += 2 {
		d.Options = append(d.Options, Option{pairs[i], pairs[i+1], pairs[i] == d.Value})
	}
	return d
}

// Faults is what is wrong with the whole form.
func (f *Form) Faults() []string { return f.top }

// Do is what to do about it.
func (f *Form) Do() string { return f.do }

// Why is what is wrong with a field.
func (f *Form) Why(name string) string { return f.errs[name] }

// Count is how many fields are wrong.
func (f *Form) Count() int { return len(f.errs) }
