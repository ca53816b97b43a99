// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package nvidia writes the other root file system of a Jetson with UEFI (L4T 35 and newer),
// has the firmware boot it, and knows which one runs. It is what fulmar-rootfs does as root.
//
// The firmware counts boots too and goes back after three that never came up. What it cannot
// see is a system that comes up and is bad, or whose first boot is cut by the power: for
// those there is a count of boots here, and a going back that the board decides.
//
// Each rule of [Board.obstacles] is a board that somebody lost; the tests bear their names.
package nvidia

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fulmar/internal/disk"
)

// Variables of the firmware.
const (
	nvidiaGUID = "781e084c-a330-417c-b678-38e696380cb9"
	globalGUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

	varLevel        = "RootfsRedundancyLevel-" + nvidiaGUID
	varStatus       = "RootfsStatusSlot" // A or B, and the GUID
	varIndications  = "OsIndications-" + globalGUID
	unbootable      = 0xff
	fileCapsule     = 4 // EFI_OS_INDICATIONS_FILE_CAPSULE_DELIVERY_SUPPORTED
	attributes      = 7 // non-volatile, boot service, runtime
	attributesBytes = 4
	maxVar          = 64 // bytes of a variable that is read here
)

// Places on a board.
const (
	efivars    = "/sys/firmware/efi/efivars"
	esp        = "/boot/efi"
	capsuleDir = "EFI/UpdateCapsule"
	capsule    = "TEGRA_BL.Cap"
	labels     = "/dev/disk/by-partlabel"
	classBlock = "/sys/class/block"
	mountinfo  = "/proc/self/mountinfo"
	bootIDFile = "/proc/sys/kernel/random/boot_id"
	nvbootctrl = "/usr/sbin/nvbootctrl"
	systemctl  = "/usr/bin/systemctl"
	// VersionFile is where a system may say its version; the fleet's word on it is kept beside.
	VersionFile = "/etc/fulmar/rootfs-version"
)

// espReserve stays free in the ESP beside a capsule, in bytes.
const espReserve = 1 << 20

// toolWait bounds a run of nvbootctrl: it reads and writes variables of the firmware.
const toolWait = 20 * time.Second

// Board is a Jetson, as seen from a root directory.
type Board struct {
	Root  string // "" is the machine's; tests put a tree of their own
	State string // folder of what is kept across both systems; not on either of them
	Disk  disk.Disk
}

func (b *Board) path(p string) string { return filepath.Join(b.Root, p) }

// slotName is A or B.
func slotName(n int) string { return string(rune('A' + n)) }

// partition is the label of a slot's root file system.
func partition(n int) string {
	if n == 0 {
		return "APP"
	}
	return "APP_b"
}

// slots is what nvbootctrl says.
type slots struct {
	current, active int
	retry           [2]int
	status          [2]string
	capsule         int // the firmware's word on the last capsule; 0 none, 1 good
}

// slots asks nvbootctrl.
func (b *Board) slots(ctx context.Context) (slots, error) {
	out, err := b.nvbootctrl(ctx, "-t", "rootfs", "dump-slots-info")
	if err != nil {
		return slots{}, err
	}
	s, err := parseSlots(out)
	if err != nil {
		return slots{}, err
	}
	chain, err := b.nvbootctrl(ctx, "dump-slots-info")
	if err != nil {
		return slots{}, err
	}
	s.capsule = parseCapsule(chain)
	return s, nil
}

// parseSlots reads
//
//	Current rootfs slot: A
//	Active rootfs slot: A
//	num_slots: 2
//	slot: 0,             retry_count: 3,             status: normal
//	slot: 1,             retry_count: 3,             status: normal
func parseSlots(out []byte) (slots, error) {
	s := slots{current: -1, active: -1, retry: [2]int{-1, -1}}
	for line := range strings.Lines(string(out)) {
		words := map[string]string{}
		for part := range strings.SplitSeq(line, ",") {
			k, v, _ := strings.Cut(part, ":")
			words[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(v)
		}
		if v, ok := words["current rootfs slot"]; ok {
			s.current = slotNumber(v)
		}
		if v, ok := words["active rootfs slot"]; ok {
			s.active = slotNumber(v)
		}
		if v, ok := words["slot"]; ok {
			n, retry := slotNumber(v), -1
			if r, err := strconv.Atoi(words["retry_count"]); err == nil {
				retry = r
			}
			if n >= 0 {
				s.retry[n], s.status[n] = retry, words["status"]
			}
		}
	}
	if s.current < 0 || s.active < 0 || s.retry[0] < 0 || s.retry[1] < 0 {
		return slots{}, fmt.Errorf("nvbootctrl -t rootfs dump-slots-info says %.200q, which names no two slots with their retry_count: is the board flashed with ROOTFS_AB=1?", bytes.TrimSpace(out))
	}
	return s, nil
}

func parseCapsule(out []byte) int {
	for line := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(line, "Capsule update status:"); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
				return n
			}
		}
	}
	return 0
}

// slotNumber reads A, B, 0 or 1; -1 for anything else.
func slotNumber(s string) int {
	switch strings.ToUpper(strings.TrimSpace(s)) {
	case "A", "0":
		return 0
	case "B", "1":
		return 1
	}
	return -1
}

func (b *Board) nvbootctrl(ctx context.Context, args ...string) ([]byte, error) {
	return b.run(ctx, nvbootctrl, args...)
}

func (b *Board) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, toolWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.path(program), args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
	cmd.WaitDelay = time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %.300s", program, strings.Join(args, " "), err, bytes.TrimSpace(append(said.Bytes(), out.Bytes()...)))
	}
	return out.Bytes(), nil
}

// variable reads a number of the firmware.
func (b *Board) variable(name string) (uint64, error) {
	raw, err := os.ReadFile(b.path(filepath.Join(efivars, name)))
	if err != nil {
		return 0, err
	}
	if len(raw) <= attributesBytes || len(raw) > maxVar {
		return 0, fmt.Errorf("%s has %d bytes: the firmware's variables are damaged; the board may have to be flashed anew", name, len(raw))
	}
	var v [8]byte
	copy(v[:], raw[attributesBytes:])
	return binary.LittleEndian.Uint64(v[:]), nil
}

// setVariable writes a number of the firmware, in one write, as the kernel wants it.
func (b *Board) setVariable(name string, value uint64, size int) error {
	path := b.path(filepath.Join(efivars, name))
	raw := binary.LittleEndian.AppendUint32(nil, attributes)
	raw = append(raw, binary.LittleEndian.AppendUint64(nil, value)[:size]...)
	if err := mutable(path); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	return errors.Join(err, f.Close())
}

// Requests of ioctl that read and set the flags of a file, and the flag by which the kernel
// keeps variables from being written by accident.
const (
	getFlags  = 0x80086601
	setFlags  = 0x40086602
	immutable = 0x10
)

// mutable lets a variable be written.
func mutable(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := ioctlFlags(f, getFlags, 0)
	if err != nil || flags&immutable == 0 {
		return nil // another file system, as in tests: the write says what is wrong, if anything
	}
	_, err = ioctlFlags(f, setFlags, flags&^immutable)
	return err
}

// boot is which boot of the machine this is.
func (b *Board) boot() string {
	id, err := os.ReadFile(b.path(bootIDFile))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// device is the partition of a slot: its path, its device number and its size.
func (b *Board) device(n int) (path, number string, size int64, err error) {
	link := b.path(filepath.Join(labels, partition(n)))
	if path, err = filepath.EvalSymlinks(link); err != nil {
		return "", "", 0, fmt.Errorf("the partition of slot %s: %w", slotName(n), err)
	}
	raw, err := os.ReadFile(b.path(filepath.Join(classBlock, filepath.Base(path), "dev")))
	if err != nil {
		return "", "", 0, fmt.Errorf("the partition of slot %s: %w", slotName(n), err)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", "", 0, fmt.Errorf("the partition of slot %s: %w", slotName(n), err)
	}
	defer f.Close()
	size, err = f.Seek(0, 2)
	return path, strings.TrimSpace(string(raw)), size, err
}

// rootDevice is the device number of what is mounted at /.
func (b *Board) rootDevice() (string, error) {
	raw, err := os.ReadFile(b.path(mountinfo))
	if err != nil {
		return "", err
	}
	number := ""
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			number = f[2] // the last one lies on top
		}
	}
	if number == "" {
		return "", errors.New("nothing is mounted at /")
	}
	return number, nil
}

// runsFrom tells whether / lies on a slot's partition: the firmware's word on the slot is
// one thing, what was mounted another.
func (b *Board) runsFrom(n int) (bool, error) {
	_, number, _, err := b.device(n)
	if err != nil {
		return false, err
	}
	root, err := b.rootDevice()
	return root == number, err
}

// numberOf is the device number of the file system that a folder lies on.
func numberOf(dir string) (string, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return "", errors.New("the system tells no device numbers")
	}
	dev := st.Dev
	major := dev>>8&0xfff | dev>>32&^0xfff
	minor := dev&0xff | dev>>12&^0xff
	return fmt.Sprintf("%d:%d", major, minor), nil
}
