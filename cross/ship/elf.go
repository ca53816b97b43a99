// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// machine gives the ELF machine of a Debian architecture.
func machine(arch string) (elf.Machine, error) {
	switch arch {
	case "arm64":
		return elf.EM_AARCH64, nil
	case "amd64":
		return elf.EM_X86_64, nil
	default:
		return 0, fmt.Errorf("no such architecture here: %s (arm64, amd64)", arch)
	}
}

// newest gives the newest version of each family of symbols that JetPack 5 has: it is
// Ubuntu 20.04, with glibc 2.31 and the libstdc++ and libgcc of GCC 10. A family that is
// not here (GLIBC_PRIVATE too, which is of one build of glibc) is refused.
func newest(family string) (version string, ok bool) {
	switch family {
	case "GLIBC":
		return "2.31", true
	case "GLIBCXX":
		return "3.4.28", true
	case "CXXABI":
		return "1.3.12", true
	case "GCC":
		return "10", true
	default:
		return "", false
	}
}

// libraries are those that every JetPack has from the start: parts of glibc, and the run
// time of GCC. All others (CUDA, TensorRT, ONNX Runtime) are opened at run time.
func libraries() []string {
	return []string{
		"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2",
		"libstdc++.so.6", "libgcc_s.so.1", "ld-linux-aarch64.so.1", "ld-linux-x86-64.so.2",
	}
}

func open(path, arch string) (*elf.File, error) {
	want, err := machine(arch)
	if err != nil {
		return nil, err
	}
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("not a program that can be read: %w", err)
	}
	if f.Machine != want {
		err := fmt.Errorf("is for %v, not for %s", f.Machine, arch)
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// static says what makes the file more than a static program of arch: an interpreter,
// or a library that it needs.
func static(path, arch string) error {
	f, err := open(path, arch)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("is not static: it asks for an interpreter; was it built with cgo?")
		}
	}
	needed, err := f.DynString(elf.DT_NEEDED)
	if err != nil {
		return fmt.Errorf("read its dynamic section: %w", err)
	}
	if len(needed) > 0 {
		return fmt.Errorf("is not static: it needs %s", strings.Join(needed, ", "))
	}
	return nil
}

// bounds says what keeps the file, a program or a library, from being loaded on JetPack
// 5: a library that is not there, or a symbol newer than the library there. It names the
// symbol, which says which call to replace.
func bounds(path, arch string) error {
	f, err := open(path, arch)
	if err != nil {
		return err
	}
	defer f.Close()
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read what it needs: %w", err)
	}
	if len(needed) == 0 {
		return errors.New("needs no library at all, so it was not built as this one must be, with cgo")
	}
	for _, lib := range needed {
		if !slices.Contains(libraries(), lib) {
			return fmt.Errorf("needs %s, which a board need not have; open it at run time", lib)
		}
	}
	symbols, err := f.ImportedSymbols()
	if err != nil {
		return fmt.Errorf("read its symbols: %w", err)
	}
	var bad []error
	for _, s := range symbols {
		if s.Version == "" {
			continue
		}
		if err := within(s.Version); err != nil {
			bad = append(bad, fmt.Errorf("symbol %s of %s: %w", s.Name, s.Library, err))
		}
	}
	// A version may be asked for without a symbol, and the loader refuses it all the same.
	needs, err := f.DynamicVersionNeeds()
	if err != nil {
		return fmt.Errorf("read the versions it asks for: %w", err)
	}
	for _, n := range needs {
		for _, v := range n.Needs {
			if err := within(v.Dep); err != nil && len(bad) == 0 {
				bad = append(bad, fmt.Errorf("a version of %s: %w", n.Name, err))
			}
		}
	}
	return errors.Join(bad...)
}

// within holds a version such as GLIBC_2.31 to the newest of its family.
func within(version string) error {
	family, number, _ := strings.Cut(version, "_")
	limit, ok := newest(family)
	if !ok {
		return fmt.Errorf("version %s is of a family without a bound", version)
	}
	have, err := numbers(number)
	if err != nil {
		return fmt.Errorf("version %s: %w", version, err)
	}
	most, err := numbers(limit)
	if err != nil {
		return err
	}
	if slices.Compare(have, most) > 0 {
		return fmt.Errorf("version %s is newer than %s_%s, the newest on JetPack 5", version, family, limit)
	}
	return nil
}

func numbers(s string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", part)
		}
		out = append(out, n)
	}
	return out, nil
}
