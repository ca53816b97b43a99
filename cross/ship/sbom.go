// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// A bill of a program with all its modules has about 60 KB; a hundred times that is not
// one of ours.
const maxBill = 6 << 20

// bill is what this program changes of a CycloneDX document; the rest goes through as
// it came.
type bill struct {
	Schema       string          `json:"$schema,omitempty"`
	Format       string          `json:"bomFormat"`
	Spec         string          `json:"specVersion"`
	Version      int             `json:"version"`
	Metadata     metadata        `json:"metadata"`
	Components   []component     `json:"components"`
	Dependencies []dependency    `json:"dependencies"`
	Compositions json.RawMessage `json:"compositions,omitempty"`
}

type metadata struct {
	Tools      []tool          `json:"tools,omitempty"`
	Component  component       `json:"component"`
	Properties json.RawMessage `json:"properties,omitempty"`
}

type tool struct {
	Vendor     string          `json:"vendor,omitempty"`
	Name       string          `json:"name"`
	Version    string          `json:"version,omitempty"`
	Hashes     json.RawMessage `json:"hashes,omitempty"`
	References json.RawMessage `json:"externalReferences,omitempty"`
}

type component struct {
	Ref        string          `json:"bom-ref"`
	Type       string          `json:"type"`
	Name       string          `json:"name"`
	Version    string          `json:"version,omitempty"`
	Scope      string          `json:"scope,omitempty"`
	Hashes     []digest        `json:"hashes,omitempty"`
	Licences   []licence       `json:"licenses,omitempty"`
	Evidence   *evidence       `json:"evidence,omitempty"`
	Purl       string          `json:"purl,omitempty"`
	References json.RawMessage `json:"externalReferences,omitempty"`
}

// evidence is what the tool takes for the licence by comparing texts. It errs now and
// then (gogo/protobuf is BSD-3-Clause, and it says 0BSD), so it stays evidence; the
// texts themselves go along in THIRD-PARTY-LICENSES.txt.
type evidence struct {
	Licences []licence `json:"licenses"`
}

type digest struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type licence struct {
	Licence struct {
		ID   string `json:"id,omitempty"`
		Name string `json:"name,omitempty"`
	} `json:"license"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn,omitempty"`
}

func spdx(id string) []licence {
	var l licence
	l.Licence.ID = id
	return []licence{l}
}

// sbom reads what cyclonedx-gomod said of a program and writes it so that the same
// program has the same bill on any machine, with the licences that the tool could not
// look up (ours and Go's own) and, where library is not empty, with ONNX Runtime: the
// worker opens it at run time, so no tool can see it. A component without a licence is
// an error: somebody has to look.
func sbom(in io.Reader, out io.Writer, name, library, version string) error {
	var b bill
	d := json.NewDecoder(io.LimitReader(in, maxBill))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return fmt.Errorf("the bill of %s is not what this program knows: %w", name, err)
	}
	for i := range b.Metadata.Tools {
		b.Metadata.Tools[i].Hashes = nil // of the tool as it was built here
	}
	b.Metadata.Component.Name = name
	b.Metadata.Component.Licences = spdx("Apache-2.0")
	for i, c := range b.Components {
		if c.Name == "std" {
			b.Components[i].Licences = spdx("BSD-3-Clause")
		}
	}
	if library != "" {
		onnx, err := onnxRuntime(library, version)
		if err != nil {
			return err
		}
		b.Components = append(b.Components, onnx)
		b.Dependencies = append(b.Dependencies, dependency{Ref: onnx.Ref})
		for i, dep := range b.Dependencies {
			if dep.Ref == b.Metadata.Component.Ref {
				b.Dependencies[i].On = append(b.Dependencies[i].On, onnx.Ref)
			}
		}
	}
	for _, c := range b.Components {
		if len(c.Licences) == 0 && (c.Evidence == nil || len(c.Evidence.Licences) == 0) {
			return fmt.Errorf("the bill of %s: no licence was found for %s %s", name, c.Name, c.Version)
		}
	}
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(b)
}

// onnxRuntime is the component for the library of ONNX Runtime that lies beside the worker.
func onnxRuntime(library, version string) (component, error) {
	f, err := os.Open(library)
	if err != nil {
		return component{}, fmt.Errorf("digest of ONNX Runtime: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return component{}, fmt.Errorf("digest of ONNX Runtime: %w", err)
	}
	purl := "pkg:npm/onnxruntime-node@" + version
	return component{
		Ref: purl, Type: "library", Name: "onnxruntime", Version: version, Scope: "optional",
		Hashes:   []digest{{"SHA-256", hex.EncodeToString(h.Sum(nil))}},
		Licences: spdx("MIT"), Purl: purl,
	}, nil
}
