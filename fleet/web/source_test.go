// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/query"
	. "fulmar/fleet/web"
	"fulmar/fleet/web/trust"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// picW and picH are the size of the test's pictures, in pixels.
const picW, picH = 640, 400

// memory is a Source that holds a small fleet. Same seed, same fleet.
type memory struct {
	mu       sync.Mutex
	now      func() time.Time
	boards   []Board
	shots    []Detection // newest first
	pictures map[string]func() []byte
	broken   error
	reads    int // overviews served
}

func (m *memory) Overview(context.Context, string) (*Overview, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.broken != nil {
		return nil, m.broken
	}
	bs := slices.Clone(m.boards)
	for i := range bs {
		// What tick changes in place is the reader's own from here.
		bs[i].Latest, bs[i].Ledger, bs[i].Cameras = slices.Clone(bs[i].Latest), slices.Clone(bs[i].Ledger), slices.Clone(bs[i].Cameras)
	}
	slices.SortStableFunc(bs, func(a, b Board) int { return strings.Compare(a.Name, b.Name) })
	return &Overview{At: m.now(), Boards: bs}, nil
}

// wave is the made-up value of a series at a moment.
func wave(series string, at time.Time) float64 {
	h := 0
	for _, c := range series {
		h = h*31 + int(c)
	}
	r := rand.New(rand.NewPCG(uint64(h), uint64(at.Unix())))
	x := float64(at.UnixMilli())/1000/float64(40+h&63) + float64(h&7)
	base := map[string][2]float64{
		"thermal.cpu_celsius": {52, 4}, "thermal.gpu_celsius": {49, 3}, "thermal.soc0_celsius": {47, 2}, "thermal.tj_celsius": {53, 4},
		"cpu.load_percent": {31, 16}, "cpu.user_percent": {22, 12}, "cpu.system_percent": {6, 3}, "gpu.load_percent": {58, 22}, "memory.used_percent": {61, 1.5},
		"net.eth0.rx_bytes_per_second": {48e3, 20e3}, "net.eth0.tx_bytes_per_second": {310e3, 160e3}, "disk.nvme0n1.write_bytes_per_second": {1.9e6, 1.2e6}, "disk.nvme0n1.read_bytes_per_second": {40e3, 40e3},
		"power.total_watts": {14.2, 2.6}, "power.cpu_gpu_cv_watts": {6.1, 2.2}, "power.soc_watts": {3.1, .4}, "load.1m": {2.1, .8}, "load.5m": {1.9, .4}, "load.15m": {1.7, .2},
		"memory.total_bytes": {16409286656, 0}, "memory.available_bytes": {6.2e9, 1e8}, "host.uptime_seconds": {1.06e6, 0}, "gpu.frequency_hertz": {918e6, 0},
		"fan.pwm_percent": {38, 3}, "fan.speed_rpm": {2310, 60}, "mount.root.used_percent": {41, 0}, "mount.root.free_bytes": {268e9, 0},
	}[series]
	return max(0, base[0]+base[1]*(0.7*math.Sin(x)+0.3*(r.Float64()*2-1)))
}

func (m *memory) Series(_ context.Context, q SeriesQuery) ([]Series, error) {
	var out []Series
	for _, name := range q.Series {
		s := Series{Name: name}
		if name == "thermal.cv0_celsius" {
			continue // powered down: never had a number
		}
		step := q.To.Sub(q.From) / time.Duration(q.Points)
		for t := q.From; t.Before(q.To); t = t.Add(step) {
			if q.Board == "dock-0002" && q.To.Sub(t) < 12*time.Minute {
				break // it was last heard then
			}
			if d := q.To.Sub(t); q.Board == "dock-0001" && d > q.To.Sub(q.From)*11/20 && d < q.To.Sub(q.From)*12/20 {
				continue // the link was down and the spool of metrics was thinned: a hole
			}
			v := wave(name, t)
			s.T, s.V = append(s.T, t.UnixMilli()), append(s.V, v)
			if step > 10*time.Second { // a point stands for many readings
				s.Lo, s.Hi = append(s.Lo, v*0.9), append(s.Hi, v*1.15)
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func (m *memory) Detections(_ context.Context, q DetectionQuery) ([]Detection, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Detection
	list := slices.Clone(m.shots)
	if q.After != "" {
		slices.Reverse(list)
	}
	past := q.Before == "" && q.After == ""
	for _, d := range list {
		if q.ID != "" {
			if d.ID == q.ID {
				return []Detection{d}, nil
			}
			continue
		}
		if d.ID == q.Before || d.ID == q.After {
			past = true
			continue
		}
		if !q.From.IsZero() && d.At.Before(q.From) || !q.To.IsZero() && !d.At.Before(q.To) || q.Boards != nil && !slices.Contains(q.Boards, d.Board) {
			continue
		}
		if past && (q.Board == "" || q.Board == d.Board) && (q.Camera == "" || q.Camera == d.Event.Source) && (!q.PicturesOnly || d.HasPicture) && len(out) < q.Limit {
			out = append(out, d)
		}
	}
	return out, nil
}

// Hours implements [detectview.Counter].
func (m *memory) Hours(_ context.Context, q DetectionQuery) (out []Hour, more bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.shots { // newest first
		at := d.At.Truncate(time.Hour)
		if d.At.Before(q.From) || !d.At.Before(q.To) || q.Board != "" && q.Board != d.Board {
			continue
		}
		if len(out) == 0 || !out[len(out)-1].At.Equal(at) {
			out = append(out, Hour{At: at})
		}
		out[len(out)-1].Count++
	}
	return out, false, nil
}

// Set implements [boardview.Metas].
func (m *memory) Set(_ context.Context, by access.Caller, board string, x rest.Meta, ifVersion int64) (rest.Meta, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.boards, func(b Board) bool { return b.Name == board })
	switch {
	case by.May(rest.BoardsWrite) != nil:
		return x, access.ErrNotAllowed
	case i < 0:
		return x, ErrNotFound
	case ifVersion >= 0 && m.boards[i].Meta.Version != ifVersion:
		return x, ErrStale
	case len(x.Site) > 64:
		return x, &Problem{Code: 422, What: "site is longer than 64 bytes", Do: "Shorten it."}
	}
	x.Version = m.boards[i].Meta.Version + 1
	m.boards[i].Meta = x
	return x, nil
}

type opened struct{ *bytes.Reader }

func (opened) Close() error { return nil }

func (m *memory) Picture(_ context.Context, _, board, blob string) (io.ReadSeekCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.pictures[board+"/"+blob]
	if !ok {
		return nil, fmt.Errorf("picture %s: %w", blob, ErrNotFound)
	}
	return opened{bytes.NewReader(b())}, nil
}

// tick moves the fleet on: new readings, counted records, now and then a picture.
func (m *memory) tick(withPicture bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for i := range m.boards {
		b := &m.boards[i]
		if !b.Online {
			continue
		}
		b.LastSeen = now
		for j := range b.Latest {
			if r := &b.Latest[j]; r.Quality == schema.QualityGood {
				r.Value, r.At = wave(r.Series, now), now
			}
		}
		for j := range b.Ledger {
			if b.Ledger[j].Class == "metric" {
				b.Ledger[j].Made++
				b.Ledger[j].Arrived++
			}
		}
		for j := range b.Cameras {
			b.Cameras[j].Last = now
		}
	}
	if withPicture {
		m.snap("dock-0001", "cam0", uint64(len(m.shots)+1), now)
	}
}

// parcelLabels are the classes of the made-up scene.
func parcelLabels() map[uint16]string {
	return map[uint16]string{0: "parcel", 1: "tube", 2: "pallet"}
}

// snap adds a detection with its picture: a drawn belt with things on it, most of
// them found.
func (m *memory) snap(board, camera string, n uint64, at time.Time) {
	r := rand.New(rand.NewPCG(n, uint64(len(board)+len(camera)*7+int(board[len(board)-1]))))
	type patch struct {
		rc image.Rectangle
		c  color.RGBA
	}
	var patches []patch
	fill := func(rc image.Rectangle, c color.RGBA) { patches = append(patches, patch{rc, c}) }
	for y := range picH {
		fill(image.Rect(0, y, picW, y+1), color.RGBA{uint8(96 + y/9), uint8(102 + y/10), uint8(104 + y/10), 255})
	}
	fill(image.Rect(0, 120, picW, 330), color.RGBA{52, 55, 58, 255})
	for x := int(n*37%40) - 40; x < picW; x += 40 {
		fill(image.Rect(x, 120, x+2, 330), color.RGBA{62, 65, 68, 255})
	}
	fill(image.Rect(0, 112, picW, 120), color.RGBA{180, 150, 40, 255})
	fill(image.Rect(0, 330, picW, 338), color.RGBA{180, 150, 40, 255})
	e := schema.Event{Source: camera, Model: "parcels@1", Frame: n * 5, Width: picW, Height: picH, Labels: parcelLabels(), LatencyUs: 6400 + uint32(r.IntN(2000)), Engine: "onnxruntime-cpu/int8"}
	browns := []color.RGBA{{176, 128, 78, 255}, {196, 154, 104, 255}, {150, 106, 62, 255}, {210, 180, 140, 255}}
	for k := range 3 + r.IntN(3) {
		w, hh := 60+r.IntN(60), 50+r.IntN(70)
		x, y := 20+k*118+r.IntN(30), 140+r.IntN(max(1, 180-hh))
		rc := image.Rect(x, y, x+w, y+hh)
		fill(rc.Add(image.Pt(5, 6)), color.RGBA{36, 38, 40, 255})
		fill(rc, browns[r.IntN(len(browns))])
		fill(image.Rect(x+w/2-4, y, x+w/2+4, y+hh), color.RGBA{222, 205, 170, 255})
		truth := schema.Box{Class: uint16(r.IntN(2)), Score: 1, X0: float32(x), Y0: float32(y), X1: float32(x + w), Y1: float32(y + hh)}
		j := func() float32 { return float32(r.IntN(7) - 3) }
		if camera == "cam0" && k == 2 && n%3 == 0 {
			truth.Match = schema.MatchMissed
		} else {
			box := schema.Box{Class: truth.Class, Score: 0.72 + r.Float32()*0.27, X0: truth.X0 + j(), Y0: truth.Y0 + j(), X1: truth.X1 + j(), Y1: truth.Y1 + j()}
			if camera == "cam0" {
				box.Match = schema.MatchTrue
			}
			e.Boxes = append(e.Boxes, box)
		}
		if camera == "cam0" {
			e.Truth = append(e.Truth, truth)
		}
	}
	if camera == "cam0" && n%4 == 3 {
		e.Boxes = append(e.Boxes, schema.Box{Class: 1, Score: 0.54, X0: 540, Y0: 20, X1: 606, Y1: 92, Match: schema.MatchFalse})
	}
	e.Snapshot = fmt.Sprintf("%s-%d.jpg", camera, n)
	m.pictures[board+"/"+e.Snapshot] = sync.OnceValue(func() []byte {
		img := image.NewRGBA(image.Rect(0, 0, picW, picH))
		for _, p := range patches {
			draw.Draw(img, p.rc, image.NewUniform(p.c), image.Point{}, draw.Src)
		}
		var b bytes.Buffer
		_ = jpeg.Encode(&b, img, &jpeg.Options{Quality: 85})
		return b.Bytes()
	})
	d := Detection{ID: fmt.Sprintf("%s/event/00c0ffee00c0ffee/%d", board, n), Board: board, At: at, Arrived: at.Add(140 * time.Millisecond), Event: e, HasPicture: true}
	if n%11 == 5 {
		d.Replayed, d.Arrived = true, at.Add(17*time.Minute)
	}
	m.shots = slices.Insert(m.shots, 0, d)
}

// trusts gives the boards of the fleet three ways to be known, and one in trouble.
func trusts(t time.Time, boards []Board) {
	sum := func(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }
	report, err := schema.Encode(&schema.AttestReport{
		V: schema.Version, Release: "0.2.0", Program: sum("fulmard"), Boot: 7, Kind: "firmware", Maker: "MSFT", Firmware: "1.38", Rollback: "no",
		Models: map[string][]byte{"parcels@1": sum("parcels")},
	})
	if err != nil {
		panic(err)
	}
	boards[0].KeyMode, boards[0].Trust = "tpm", &Trust{
		How: schema.TrustFirstUse, Fingerprint: "9f86d081884c7d65", Enrolled: t.Add(-40 * 24 * time.Hour), Until: t.Add(50 * 24 * time.Hour),
		Kind: "firmware", Maker: "MSFT", Firmware: "1.38", Note: "It sent no certificate of its maker.",
		Level: trust.Bound, Good: t.Add(-4 * time.Minute), Since: t.Add(-26 * time.Hour), Boots: 41, Report: report,
	}
	boards[1].Trust = &Trust{How: schema.TrustSoftware, Fingerprint: "60303ae22b998861", Enrolled: t.Add(-3 * 24 * time.Hour), Until: t.Add(87 * 24 * time.Hour), Level: trust.Claimed}
	boards[2].KeyMode, boards[2].Trust = "tpm", &Trust{
		How: schema.TrustMaker, Fingerprint: "fd61a03af4f77d87", Enrolled: t.Add(-40 * 24 * time.Hour), Until: t.Add(50 * 24 * time.Hour),
		Kind: "discrete", Maker: "IFX", Firmware: "7.85", Note: "OPTIGA TPM Manufacturing CA 042 signed it.",
		Level: trust.Measured, Good: t.Add(-20 * time.Hour), Since: t.Add(-9 * 24 * time.Hour), Boots: 12, Report: report,
		Refused: 3, RefusedAt: t.Add(-2 * time.Minute), Why: "The clock of its TPM went back: an old state of the TPM was put back, or the TPM was copied.",
	}
}

// keeper is a Keeper that keeps what was decided.
type keeper struct {
	mu   sync.Mutex
	asks []trust.Request
	did  []string
	kept []rest.SavedQuery
	err  error
}

func (k *keeper) Pending(context.Context, string) ([]trust.Request, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.asks), nil
}

func (k *keeper) note(format string, args ...any) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.did = append(k.did, fmt.Sprintf(format, args...))
	}
	return k.err
}

func (k *keeper) settle(id int64, who, decision string) error {
	if err := k.note("%s %d by %s", decision, id, who); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.asks {
		if k.asks[i].ID == id {
			k.asks[i].Decision, k.asks[i].By, k.asks[i].DecidedAt = decision, who, k.asks[i].Last
			return nil
		}
	}
	return trust.ErrGone
}

func (k *keeper) Approve(_ context.Context, _ string, id int64, who string) error {
	return k.settle(id, who, "approved")
}

func (k *keeper) Refuse(_ context.Context, _ string, id int64, who string) error {
	return k.settle(id, who, "refused")
}

func (k *keeper) Revoke(_ context.Context, tenant, board, who, why string) error {
	return k.note("revoke %s/%s by %s: %s", tenant, board, who, why)
}

func (k *keeper) Forget(_ context.Context, tenant, board, who, why string) error {
	return k.note("forget %s/%s by %s: %s", tenant, board, who, why)
}

// Queries implements [fleetview.Saved].
func (k *keeper) Queries(context.Context, string) ([]rest.SavedQuery, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.kept), nil
}

// SaveQuery implements [fleetview.Saved].
func (k *keeper) SaveQuery(_ context.Context, _ access.Caller, q rest.SavedQuery) (rest.SavedQuery, error) {
	parsed, err := query.Parse(q.Query)
	if err != nil {
		return q, err
	}
	q.Query = parsed.String()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = append(k.kept, q)
	return q, nil
}

// RemoveQuery implements [fleetview.Saved].
func (k *keeper) RemoveQuery(_ context.Context, _ access.Caller, name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = slices.DeleteFunc(k.kept, func(q rest.SavedQuery) bool { return q.Name == name })
	return nil
}

// newKeeper makes one with boards of each kind that ask.
func newKeeper(t time.Time) *keeper {
	facts := map[string]string{"model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "l4t": "36.4.4"}
	return &keeper{asks: []trust.Request{
		{
			ID: 4, Board: "dock-0004", Why: "new", Say: "A new board asks to join.", How: schema.TrustFirstUse, Fingerprint: "2c26b46b68ffc68f",
			Kind: "firmware", Maker: "MSFT", Firmware: "1.38", Note: "It sent no certificate of its maker.", Facts: facts, From: "192.0.2.44", First: t.Add(-7 * time.Minute), Last: t.Add(-12 * time.Second),
		},
		{
			ID: 5, Board: "dock-0002", Why: "to-software", Say: "It was enrolled with a TPM and now has a key in a file: the TPM is off or gone, or another board uses this name.",
			How: schema.TrustSoftware, Fingerprint: "fcde2b2edba56bf4", Facts: facts, From: "192.0.2.12", First: t.Add(-3 * time.Hour), Last: t.Add(-40 * time.Second),
		},
		{
			ID: 6, Board: "dock-0009", Why: "elsewhere", Other: "dock-0003", Say: "Its TPM or key is that of board dock-0003: one of the two names is wrong, or a disk was copied.",
			How: schema.TrustMaker, Fingerprint: "fd61a03af4f77d87", Kind: "discrete", Maker: "IFX", Firmware: "7.85", From: "192.0.2.9", First: t.Add(-time.Minute), Last: t.Add(-30 * time.Second),
		},
		{
			ID: 7, Board: "dock-0003", Why: "ak", Say: "The same TPM with new keys: its TPM was cleared or its disk is new.", How: schema.TrustMaker, Fingerprint: "fd61a03af4f77d87",
			Kind: "discrete", Maker: "IFX", Firmware: "7.85", From: "192.0.2.13", First: t.Add(-time.Hour), Last: t.Add(-50 * time.Second), Decision: "approved", By: "admin", DecidedAt: t.Add(-20 * time.Second),
		},
	}}
}

// newMemory makes the fleet: one healthy board with a scene camera, one that is
// unreachable, one degraded.
func newMemory(now func() time.Time) *memory {
	m := &memory{now: now, pictures: map[string]func() []byte{}}
	t := now()
	names := []string{
		"cpu.core0_load_percent", "cpu.core1_load_percent", "cpu.core2_load_percent", "cpu.core3_load_percent", "cpu.load_percent", "cpu.online_count", "cpu.system_percent", "cpu.user_percent",
		"disk.nvme0n1.read_bytes_per_second", "disk.nvme0n1.write_bytes_per_second", "fan.pwm_percent", "fan.speed_rpm", "gpu.frequency_hertz", "gpu.load_percent", "host.uptime_seconds",
		"load.15m", "load.1m", "load.5m", "memory.available_bytes", "memory.total_bytes", "memory.used_percent", "mount.root.free_bytes", "mount.root.used_percent",
		"net.eth0.rx_bytes_per_second", "net.eth0.tx_bytes_per_second", "power.cpu_gpu_cv_watts", "power.soc_watts", "power.total_watts",
		"thermal.cpu_celsius", "thermal.cv0_celsius", "thermal.gpu_celsius", "thermal.soc0_celsius", "thermal.tj_celsius",
	}
	latest := func(at time.Time) []Reading {
		var out []Reading
		for _, n := range names {
			r := Reading{Series: n, Value: wave(n, at), At: at}
			switch n {
			case "thermal.cv0_celsius":
				r.Value, r.Quality = 0, schema.QualityOffline
			case "cpu.online_count":
				r.Value = 8
			}
			out = append(out, r)
		}
		return out
	}
	book := func(made, lost, waiting uint64) []Ledger {
		return []Ledger{
			{Class: "alarm", Epochs: 1, Made: 14, Arrived: 14},
			{Class: "event", Epochs: 1, Made: 1240, Arrived: 1240, Duplicates: 3},
			{Class: "metric", Epochs: 2, Made: made, Arrived: made - lost - waiting, Lost: lost, Waiting: waiting},
			{Class: "snapshot", Epochs: 1, Made: 248, Arrived: 248},
		}
	}
	late, torn := book(2210, 0, 37), book(2680, 362, 0)
	late[2].Oldest = t.Add(-13 * time.Minute)
	torn[2].Reasons = map[string]uint64{"crash": 2, "thinned": 300, "disk full": 60}
	facts := map[string]string{"model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "l4t": "36.4.4", "kernel": "5.15.148-tegra", "os": "Ubuntu 22.04.5 LTS", "arch": "arm64", "cpus": "8", "memory_bytes": "16409286656"}
	m.boards = []Board{
		{
			Name: "dock-0001", State: StateHealthy, Since: t.Add(-26 * time.Hour), LastSeen: t, Online: true, Release: "0.2.0", KeyMode: "software", Facts: facts,
			Latest: latest(t), Ledger: torn,
			Reports: []Report{
				{"worker", "ok", schema.SeverityInfo, "Inference worker runs parcels@1 on onnxruntime-cpu/int8.", t.Add(-26 * time.Hour)},
				{"spool", "crash gap", schema.SeverityWarn, "After a power loss 2 metric records of the last second were not on disk; they are written down as lost.", t.Add(-26*time.Hour - time.Minute)},
			},
			Cameras: []Camera{
				{Name: "cam0", Model: "parcels@1", Engine: "onnxruntime-cpu/int8", Last: t, Events: 720, Boxes: 2904, Known: true, True: 2846, False: 58, Missed: 131},
				{Name: "yard", Model: "parcels@1", Engine: "onnxruntime-cpu/int8", Last: t.Add(-8 * time.Second), Events: 520, Boxes: 1633},
			},
			Gaps: []Gap{
				{Class: "metric", First: 1801, Last: 1860, Count: 60, Reason: "disk full", From: t.Add(-3 * time.Hour), To: t.Add(-2 * time.Hour), At: t.Add(-2 * time.Hour)},
				{Class: "metric", First: 1301, Last: 1600, Count: 300, Reason: "thinned", From: t.Add(-9 * time.Hour), To: t.Add(-4 * time.Hour), At: t.Add(-3 * time.Hour)},
				{Class: "metric", First: 1207, Last: 1208, Count: 2, Reason: "crash", At: t.Add(-26 * time.Hour)},
			},
		},
		{
			Name: "dock-0002", State: StateUnreachable, Cause: "no message for 12 min; its own link or power", Since: t.Add(-12 * time.Minute), LastSeen: t.Add(-12 * time.Minute),
			Release: "0.2.0", KeyMode: "software", Facts: facts, Latest: latest(t.Add(-12 * time.Minute)), Ledger: late,
		},
		{
			Name: "dock-0003", State: StateDegraded, Cause: "worker restarting", Since: t.Add(-95 * time.Second), LastSeen: t, Online: true, Release: "0.2.0", KeyMode: "software", Facts: facts,
			Latest: latest(t), Ledger: book(1932, 0, 0),
			Reports: []Report{{"worker", "restarting", schema.SeverityAlarm, "The inference worker died of signal 9 and starts again in 8 s (try 3); sampling and publishing go on.", t.Add(-95 * time.Second)}},
			Cameras: []Camera{{Name: "cam0", Model: "parcels@1", Engine: "onnxruntime-cpu/int8", Last: t.Add(-95 * time.Second), Events: 611, Boxes: 2410, Known: true, True: 2371, False: 39, Missed: 102}},
		},
	}
	trusts(t, m.boards)
	for n := range uint64(34) {
		at := t.Add(time.Duration(n)*20*time.Second - 12*time.Minute)
		m.snap("dock-0001", "cam0", n+1, at)
		if n%3 == 0 {
			m.snap("dock-0001", "yard", n+101, at.Add(4*time.Second))
			m.snap("dock-0003", "cam0", n+201, at.Add(7*time.Second))
		}
	}
	slices.SortStableFunc(m.shots, func(a, b Detection) int { return b.At.Compare(a.At) })
	return m
}

// door is an Auth with one user and one session, kept in memory.
type door struct {
	mu       sync.Mutex
	password string
	must     bool
	open     bool
	known    bool // whoever asks has the session
	tries    int
	role     rest.Role // "" is an admin
}

func (d *door) Session(r *http.Request) (Session, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := r.Cookie("session")
	role := d.role
	if role == "" {
		role = rest.Admin
	}
	return Session{Tenant: "main", User: "admin", Role: role, MustChange: d.must}, d.open && (d.known || err == nil && c.Value == "s1")
}

func (d *door) Login(w http.ResponseWriter, _ *http.Request, _, password, _ string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tries++; d.tries > 5 {
		return ErrTooManyTries
	}
	if password != d.password {
		return ErrWrongPassword
	}
	d.open = true
	http.SetCookie(w, &http.Cookie{Name: "session", Value: "s1", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	return nil
}

func (d *door) SetPassword(_ http.ResponseWriter, _ *http.Request, old, fresh string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case old != d.password:
		return ErrWrongPassword
	case fresh == "database is away":
		return errors.New("database is away")
	case fresh == old:
		return ErrWeakPassword
	}
	d.password, d.must = fresh, false
	return nil
}

func (d *door) Logout(http.ResponseWriter, *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = false
}
