// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
)

// recipe is raised when this program builds another engine of the same parts, so
// that what was built or refused before does not count any more.
const recipe = 1

// Key is all that an engine depends on. Two boards that differ in one part of it
// cannot share engines.
type Key struct {
	Recipe int `json:"recipe"`
	// Network is the SHA-256 of the ONNX file, in hexadecimal.
	Network string `json:"network"`
	// Flavour and Version are the library's, "TensorRT" and "10.3.0".
	Flavour string `json:"flavour"`
	Version string `json:"version"`
	// ComputeCapability ("8.7") and SMs are the GPU's.
	ComputeCapability string `json:"compute_capability"`
	SMs               int    `json:"sms"`
	// L4T is the release line of /etc/nv_tegra_release; "" where there is none.
	L4T string `json:"l4t"`
	// The options of the build.
	Precision string `json:"precision"`
	MaxBatch  int    `json:"max_batch"`
	Level     int    `json:"level"`
	Workspace int64  `json:"workspace"`
	// DLACore is the core the engine runs on, -1 for the GPU.
	DLACore int `json:"dla_core"`
}

// ID names the key: the SHA-256 of its parts, in hexadecimal.
func (k *Key) ID() string {
	b, err := json.Marshal(k)
	if err != nil {
		panic(err) // numbers and strings always encode
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// isID says whether a name can be a key's.
func isID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && s == strings.ToLower(s)
}

// Device is what TensorRT and the GPU are, as far as engines depend on it.
type Device struct {
	Flavour, Version  string
	Name              string // "Orin"
	ComputeCapability string // "8.7"
	SMs               int
	Memory            int64 // bytes
	DLACores          int
	// Parser says whether engines can be built here.
	Parser bool
	// Driver is the CUDA driver's version, "12.6"; "" without one nothing can run.
	Driver string
}

// String is "TensorRT 10.3.0 on Orin".
func (d *Device) String() string {
	s := d.Flavour + " " + d.Version
	if d.Name != "" {
		s += " on " + d.Name
	}
	return s
}

// Options are those of a build that a person may choose.
type Options struct {
	MaxBatch int
	// Level is the builder's optimization level, negative for the library's own.
	Level int
	// DLACore puts the engine on a DLA core; -1 for the GPU.
	DLACore int
}

// NewKey puts the parts together. l4t is what [L4T] gave, precision the variant's.
func NewKey(network, precision string, d *Device, l4t string, o Options) Key {
	if o.DLACore >= 0 {
		o.MaxBatch = 1 // a DLA takes no open shapes
	}
	return Key{
		Recipe: recipe, Network: strings.ToLower(network),
		Flavour: d.Flavour, Version: d.Version, ComputeCapability: d.ComputeCapability, SMs: d.SMs, L4T: l4t,
		// Half precision is allowed beside either: the golden pictures tell if a
		// network does not stand it, and without it boards are half as fast.
		Precision: precision + "+fp16", MaxBatch: max(1, o.MaxBatch), Level: max(-1, o.Level),
		Workspace: workspace(d.Memory), DLACore: max(-1, o.DLACore),
	}
}

// workspace is the memory that one layer may take while it runs: an eighth of the
// GPU's, rounded down so that a few megabytes less after an update of the board do
// not ask for another engine.
func workspace(memory int64) int64 {
	const least, most = 128 << 20, 1 << 30
	if memory < 8*least {
		return least
	}
	return min(most, int64(1)<<(bits.Len64(uint64(memory/8))-1))
}

// maxRelease bounds what is read of the release file.
const maxRelease = 4 << 10

// L4T gives the release line of a Jetson's system under root ("/"), "" elsewhere. An
// update of it is another system for engines, even with TensorRT unchanged: the
// driver comes with it.
func L4T(root string) (string, error) {
	f, err := os.Open(filepath.Join(root, "etc/nv_tegra_release"))
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read L4T release: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRelease))
	if err != nil {
		return "", fmt.Errorf("read L4T release: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.ToValidUTF8(strings.TrimSpace(strings.TrimPrefix(line, "#")), "?"), nil
}
