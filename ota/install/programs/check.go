// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"fulmar/ota/release"
	"fulmar/ota/slot"
)

// libraryForm is the names of what a worker opens beside itself.
var libraryForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^lib[A-Za-z0-9_+-]+\.so(\.[0-9]+)*$`) })

// check refuses a component that holds what is not of it: above all the launcher, which is
// what goes back from a bad update; and programs of another machine.
func check(name string, c *release.Component, paths map[string]string) error {
	if c.Name != name {
		return fmt.Errorf("it is %s", c.Name)
	}
	main := map[string]string{Agent: slot.Agent, Worker: slot.Worker}[name]
	found := false
	for i := range c.Files {
		f := &c.Files[i]
		switch {
		case strings.HasPrefix(f.Path, "fulmar-launch"):
			return errors.New("it holds fulmar-launch, which comes with the package alone and goes back from a bad update")
		case name == Worker && f.Path == slot.Agent:
			return fmt.Errorf("it holds %s, which is of component %s", slot.Agent, Agent)
		case f.Path != slot.Agent && f.Path != slot.Worker && !libraryForm().MatchString(f.Path):
			return fmt.Errorf("it holds %s; wants %s, %s and libraries (lib….so…)", f.Path, slot.Agent, slot.Worker)
		case f.Unpack:
			return fmt.Errorf("%s is to be unpacked; programs come file by file", f.Path)
		case paths[f.Path] == "":
			return fmt.Errorf("%s was not brought", f.Path)
		}
		if err := program(paths[f.Path]); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		found = found || f.Path == main
	}
	if !found {
		return fmt.Errorf("it has no %s", main)
	}
	return nil
}

// Of ELF: the class, the order of bytes, where the type and the machine stand, and their values.
const (
	elfHead    = 20
	elfType    = 16
	elfMachine = 18
	elfExec    = 2
	elfDyn     = 3
	machineX86 = 62
	machineARM = 183
)

// program looks whether a file is a program or library for this machine.
func program(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var h [elfHead]byte
	if _, err := io.ReadFull(f, h[:]); err != nil || string(h[:4]) != "\x7fELF" {
		return errors.New("is no program (no ELF header)")
	}
	want := map[string]uint16{"amd64": machineX86, "arm64": machineARM}[runtime.GOARCH]
	got, kind := binary.LittleEndian.Uint16(h[elfMachine:]), binary.LittleEndian.Uint16(h[elfType:])
	if h[4] != 2 || h[5] != 1 || got != want {
		return fmt.Errorf("is for another machine (ELF machine %d, class %d; this is %s, machine %d, class 2)", got, h[4], runtime.GOARCH, want)
	}
	if kind != elfExec && kind != elfDyn {
		return fmt.Errorf("is neither a program nor a library (ELF type %d)", kind)
	}
	return nil
}

// workerKey stands for the files of a slot that the worker is made of.
func workerKey(sl *slot.Slot) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(sl.Files)) {
		if name != slot.Agent {
			fmt.Fprintf(h, "%s %s\n", name, sl.Files[name].SHA256)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// maxLabel is the longest version that a slot may have, in bytes.
const maxLabel = 64

// label is the version of a slot of two parts: that of the agent, and where the worker has
// another one that one too. In Debian's order it lies behind the agent's own version and
// before the next one, so that a newer package still goes before it.
func label(agent, worker string) (string, error) {
	v := agent
	if worker != agent {
		v += "+worker." + worker
	}
	v = strings.ReplaceAll(v, "_", ".") // a slot's version has none
	if len(v) > maxLabel {
		sum := sha256.Sum256([]byte(v))
		v = v[:maxLabel-9] + "." + hex.EncodeToString(sum[:4])
	}
	if v == "" || !(v[0] >= '0' && v[0] <= '9' || v[0]|0x20 >= 'a' && v[0]|0x20 <= 'z') {
		return "", fmt.Errorf("version %.80q does not begin with a letter or digit", v)
	}
	return v, nil
}
