// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fulmar/inference/engines/cache"
	"fulmar/inference/trt"
)

// errNothingRuns ends doctor with 1 when no model can run here.
var errNothingRuns = errors.New("no model can run here")

// finding is one thing that doctor looked for.
type finding struct {
	What string `json:"what"`
	// State is ok, missing or wrong.
	State string `json:"state"`
	Value string `json:"value"`
	// Advice is what to do about it, "" if nothing.
	Advice string   `json:"advice,omitempty"`
	Looked []string `json:"looked,omitempty"` // places, where it was not found
}

// diagnosis is all of them.
type diagnosis struct {
	OK       bool      `json:"ok"`     // models can run
	Choice   string    `json:"choice"` // what they run on
	Findings []finding `json:"findings"`
}

func (d *diagnosis) add(f finding) { d.Findings = append(d.Findings, f) }

// doctor says what was found and chosen.
func doctor(o options, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("doctor", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	dir := fs.String("cache", defaultCache, "")
	asJSON := fs.Bool("json", false, "")
	if fs.Parse(args) != nil || fs.NArg() > 0 {
		return errUsage
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: max(o.level, slog.LevelWarn)}))
	d := diagnose(o, *dir, log)
	if err := d.write(stdout, *asJSON); err != nil {
		return err
	}
	if !d.OK {
		return errNothingRuns
	}
	return nil
}

func (d *diagnosis) write(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(d)
	}
	var b strings.Builder
	told := "" // the same folders are not told again and again
	for _, f := range d.Findings {
		fmt.Fprintf(&b, "%-8s %-16s %s\n", f.State, f.What, f.Value)
		if looked := strings.Join(f.Looked, ", "); looked != "" && looked != told {
			fmt.Fprintf(&b, "%25s looked in %s\n", "", looked)
			told = looked
		}
		if f.Advice != "" {
			fmt.Fprintf(&b, "%25s -> %s\n", "", f.Advice)
		}
	}
	fmt.Fprintln(&b, d.Choice)
	_, err := io.WriteString(w, b.String())
	return err
}

// diagnose looks at everything a model could run on.
func diagnose(o options, cacheDir string, log *slog.Logger) *diagnosis {
	d := &diagnosis{}
	onnxOK := d.onnxRuntime(o)
	device := d.tensorRT(o, log)
	d.system()
	d.engineCache(cacheDir, log)
	d.OK = onnxOK || device != nil
	switch {
	case device != nil && onnxOK:
		d.Choice = "models run on " + device.String() + "; on ONNX Runtime until their engines are built"
	case device != nil:
		d.Choice = "models run on " + device.String() + ", those with engine: tensorrt only: there is no ONNX Runtime to go before or to fall back to"
	case onnxOK:
		d.Choice = "models run on ONNX Runtime, on the CPU"
	default:
		d.Choice = "no model can run here: see what is missing above"
	}
	return d
}

func (d *diagnosis) onnxRuntime(o options) bool {
	f := finding{What: "ONNX Runtime", State: "missing", Advice: "put libonnxruntime.so.1 beside fulmar-infer, or give its path with --ort or FULMAR_ORT"}
	rt := &onnx{library: o.library}
	if f.Value = rt.library; f.Value == "" {
		path, err := findLibrary()
		if err != nil {
			f.Value, f.Looked = "no "+libraryName, libraryDirs()
			d.add(f)
			return false
		}
		f.Value = path
	}
	if _, err := rt.runtime(); err != nil {
		f.State, f.Value = "wrong", err.Error()
		d.add(f)
		return false
	}
	f.State, f.Value, f.Advice = "ok", rt.version()+", "+f.Value, ""
	d.add(f)
	return true
}

// tensorRT looks for the libraries one by one and opens them; nil if models cannot
// run on it.
func (d *diagnosis) tensorRT(o options, log *slog.Logger) *cache.Device {
	found := trt.Find(filepath.SplitList(o.tensorrt)...)
	const jetpack = "on a Jetson: sudo apt install nvidia-jetpack (or tensorrt); elsewhere give its folder with --trt or FULMAR_TRT"
	for _, l := range []struct{ what, path, missing, advice string }{
		{"TensorRT", found.Infer, "no libnvinfer.so.8, .10 or .11, no libtensorrt_rtx.so.1", jetpack},
		{"ONNX parser", found.Parser, "no libnvonnxparser of TensorRT's major", "engines in the cache run, none can be built; " + jetpack},
		{"CUDA driver", found.Driver, "no libcuda.so.1", "on a Jetson: sudo apt install nvidia-l4t-cuda; elsewhere install NVIDIA's driver; in a container run it with --gpus all or --runtime nvidia"},
	} {
		if l.path == "" {
			d.add(finding{What: l.what, State: "missing", Value: l.missing, Advice: l.advice, Looked: found.Dirs})
			continue
		}
		d.add(finding{What: l.what, State: "ok", Value: l.path})
	}
	for _, p := range found.Others {
		d.add(finding{What: "also there", State: "ok", Value: p + ", not chosen"})
	}
	if found.Infer == "" {
		return nil
	}
	g, err := openGPU(o.tensorrt, log)
	if err != nil {
		d.add(finding{What: "GPU", State: "wrong", Value: err.Error(), Advice: "mend what it says; until then models run on ONNX Runtime"})
		return nil
	}
	i, dev := g.lib.Info(), g.Device()
	if i.Driver == "" {
		d.add(finding{What: "GPU", State: "missing", Value: dev.String() + " is there, but no CUDA driver", Advice: "see CUDA driver above"})
		return nil
	}
	kind := "memory of its own"
	if i.Integrated {
		kind = "memory shared with the CPU"
	}
	d.add(finding{What: "GPU", State: "ok", Value: fmt.Sprintf("%s, compute capability %s, %d SMs, %d MiB, %s, driver for CUDA %s", &dev, dev.ComputeCapability, dev.SMs, dev.Memory>>20, kind, dev.Driver)})
	d.add(finding{What: "DLA", State: "ok", Value: fmt.Sprintf("%d cores", dev.DLACores)})
	return &dev
}

// jetPacks are the JetPack releases by the number of their L4T.
var jetPacks = [...]struct{ l4t, jetPack string }{{"R35", "JetPack 5"}, {"R36", "JetPack 6"}, {"R38", "JetPack 7"}, {"R39", "JetPack 7"}}

func (d *diagnosis) system() {
	l4t, err := cache.L4T("/")
	switch {
	case err != nil:
		d.add(finding{What: "L4T", State: "wrong", Value: err.Error()})
	case l4t == "":
		d.add(finding{What: "L4T", State: "ok", Value: "none: this is no Jetson"})
	default:
		value := l4t
		for _, j := range jetPacks {
			if strings.HasPrefix(l4t, j.l4t) {
				value = j.jetPack + ": " + l4t
			}
		}
		d.add(finding{What: "L4T", State: "ok", Value: value})
	}
}

func (d *diagnosis) engineCache(dir string, log *slog.Logger) {
	f := finding{What: "engine cache", State: "ok"}
	c, err := cache.View(dir, log)
	switch {
	case errors.Is(err, os.ErrNotExist):
		f.Value = dir + " is not there: no engine was built yet"
		d.add(f)
		return
	case err != nil:
		f.State, f.Value, f.Advice = "wrong", err.Error(), "run doctor as the user of fulmar-infer, or give another folder with --cache"
		d.add(f)
		return
	}
	f.Value = fmt.Sprintf("%s: %d engines, %.1f MiB with timing caches", dir, len(c.List()), float64(c.Bytes())/(1<<20))
	d.add(f)
	for _, s := range c.List() {
		if s.Meta == nil {
			d.add(finding{What: "engine", State: "wrong", Value: s.ID[:12] + " is damaged", Advice: "nothing: it is built anew when a model asks for it"})
			continue
		}
		d.add(finding{What: "engine", State: "ok", Value: fmt.Sprintf("%s: %s %s of %s, %.1f MiB, built in %.0f s, %d us a picture", s.ID[:12], s.Meta.Model, s.Meta.Key.Precision, s.Meta.Device, float64(s.Bytes)/(1<<20), s.Meta.Took, s.Meta.RunUs)})
	}
	records := c.Records()
	ids := make([]string, 0, len(records))
	for id := range records {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		r := records[id]
		if why := r.Barred(); why != "" {
			d.add(finding{What: "engine", State: "wrong", Value: id[:12] + ": " + why, Advice: "it is not tried again until its model, TensorRT or the system changes; fulmar-infer model build --anew tries now"})
		} else {
			d.add(finding{What: "engine", State: "ok", Value: fmt.Sprintf("%s: in use for less than a minute, %d times without an orderly end", id[:12], r.Tries)})
		}
	}
}
