// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Host is the address by which the machine reaches the doors.
const Host = "10.0.2.100"

// Door lets the machine reach one server of the host: vm.Host and Port in there is
// Address out here.
type Door struct {
	Port    int
	Address string // host:port
}

// Options say what machine.
type Options struct {
	Dir   string // where its disk and its console's words lie; an empty folder
	Cache string // where roots are kept, see [Root]
	Suite string // bullseye, bookworm or trixie
	Arch  string // amd64 or arm64
	Doors []Door

	Packages []string // of Debian, beside those of [Root]
	Disk     int64    // bytes, sparse; 0 is 2 GiB
	Memory   int      // MiB; 0 is 1024
	CPUs     int      // 0 is 2
	Args     []string // further arguments of QEMU: a TPM, say
	Append   string   // further words for the kernel
}

// Machine is one machine, on or off.
type Machine struct {
	// Booted is how long the last start took until a command could run, as measured
	// here; Uptime what the machine's own kernel said then.
	Booted, Uptime time.Duration
	// KVM tells whether it runs on the processor itself.
	KVM bool

	opts   Options
	root   string
	part   string // the harness's program for the host
	cmd    *exec.Cmd
	done   chan struct{}
	talk   *talk
	socket string
}

// bootLimit is how long a machine may take until it answers: 100 s were seen emulated
// on two busy cores.
const bootLimit = 8 * time.Minute

// Start makes the disk and turns the machine on.
func Start(ctx context.Context, o Options) (_ *Machine, err error) {
	if o.Disk == 0 {
		o.Disk = 2 << 30
	}
	if o.Memory == 0 {
		o.Memory = 1024
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	m := &Machine{opts: o, KVM: kvm(o.Arch)}
	if m.root, err = Root(ctx, o.Cache, o.Suite, o.Arch, o.Packages...); err != nil {
		return nil, err
	}
	guest := filepath.Join(o.Dir, "agent")
	m.part = filepath.Join(o.Dir, "part")
	if err := errors.Join(buildPart(ctx, m.part, runtime.GOARCH), buildPart(ctx, guest, o.Arch)); err != nil {
		return nil, err
	}
	if err := m.makeDisk(ctx, guest); err != nil {
		return nil, err
	}
	// A name of a socket has at most 107 bytes, which a test's folder may exceed.
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		return nil, err
	}
	m.socket = filepath.Join(dir, "s")
	if err := m.Boot(ctx); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// buildPart builds the harness's program for the host or the machine.
func buildPart(ctx context.Context, out, arch string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, "fulmar/tests/vm/part")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	return run(cmd)
}

// makeDisk makes an ext4 file system of the root, and puts the agent into it.
func (m *Machine) makeDisk(ctx context.Context, agent string) error {
	disk := m.disk()
	f, err := os.Create(disk)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(m.opts.Disk), f.Close()); err != nil {
		return err
	}
	if err := run(exec.CommandContext(ctx, "/sbin/mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", m.root, disk)); err != nil {
		return fmt.Errorf("make the machine's disk: %w", err)
	}
	put := exec.CommandContext(ctx, "/sbin/debugfs", "-w", "-f", "-", disk)
	put.Stdin = strings.NewReader("cd /usr/lib\nwrite " + agent + " machine-agent\nsif machine-agent mode 0100755\n")
	return run(put)
}

func (m *Machine) disk() string { return filepath.Join(m.opts.Dir, "disk") }

// Boot turns the machine on and waits until it answers. Start does so already.
func (m *Machine) Boot(ctx context.Context) error {
	begin := time.Now()
	_ = os.Remove(m.socket)
	l, err := net.Listen("unix", m.socket)
	if err != nil {
		return err
	}
	defer l.Close()
	console, err := os.OpenFile(filepath.Join(m.opts.Dir, "qemu.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	name, args := m.command()
	m.cmd = exec.Command(name, args...)
	m.cmd.Stdout, m.cmd.Stderr = console, console
	// A test that dies takes its machine along.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	m.done = make(chan struct{})
	if err := startLocked(m.cmd, m.done); err != nil {
		return fmt.Errorf("start %s: %w; type: cross/need qemu-system-x86 qemu-system-arm", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	c, err := accept(ctx, l, m.done)
	if err != nil {
		m.Cut()
		return fmt.Errorf("QEMU did not come up: %w\n%s", err, m.words("qemu.log"))
	}
	m.talk = newTalk(c)
	return m.answered(ctx, begin)
}

// startLocked starts a command from a thread that stays until it ends: the kernel takes
// the end of the starting thread for the parent's death.
func startLocked(cmd *exec.Cmd, done chan struct{}) error {
	started := make(chan error, 1)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return <-started
}

func accept(ctx context.Context, l net.Listener, done chan struct{}) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		got <- result{c, err}
	}()
	select {
	case r := <-got:
		return r.c, r.err
	case <-done:
		return nil, errors.New("it ended")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answered waits for the agent's first word.
func (m *Machine) answered(ctx context.Context, begin time.Time) error {
	select {
	case h := <-m.talk.hello:
		m.Booted = time.Since(begin)
		m.Uptime = time.Duration(h.Uptime * float64(time.Second))
		return nil
	case <-m.done:
		return fmt.Errorf("the machine ended while it booted\n%s\n%s", m.words("qemu.log"), m.Console())
	case <-ctx.Done():
		return fmt.Errorf("the machine did not answer in %v: %w\n%s", time.Since(begin).Round(time.Second), ctx.Err(), m.Console())
	}
}

// command is QEMU's command line.
func (m *Machine) command() (name string, args []string) {
	console := "ttyS0"
	cpu := "max"
	switch m.opts.Arch {
	case "amd64":
		name, args = "qemu-system-x86_64", []string{"-M", "q35"}
	case "arm64":
		// The core of Jetson AGX Xavier's time that QEMU 7.2 knows; max computes
		// pointer authentication and takes twice the time.
		name, args, console, cpu = "qemu-system-aarch64", []string{"-M", "virt"}, "ttyAMA0", "cortex-a72"
	}
	accel := "tcg,thread=multi"
	if m.KVM {
		accel, cpu = "kvm", "host"
	}
	args = append(args, "-accel", accel, "-cpu", cpu, "-smp", fmt.Sprint(m.opts.CPUs), "-m", fmt.Sprint(m.opts.Memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(m.root, "boot/vmlinuz"),
		"-append", "root=/dev/nvme0n1 rw quiet panic=-1 random.trust_cpu=on systemd.show_status=no console="+console+" "+m.opts.Append,
		// unsafe: what the machine wrote is the host's when it was written, so that a cut
		// takes what the machine's own kernel held back, and no more.
		"-drive", "if=none,id=disk,format=raw,cache=unsafe,file="+m.disk(),
		"-device", "nvme,drive=disk,serial=disk",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
		"-serial", "file:"+filepath.Join(m.opts.Dir, "console"),
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,path="+m.socket,
		"-device", "virtserialport,chardev=agent,name=fulmar.vm")
	netdev := "user,id=net,restrict=on,ipv6=off"
	for _, d := range m.opts.Doors {
		netdev += fmt.Sprintf(",guestfwd=tcp:%s:%d-cmd:%s relay %s", Host, d.Port, m.part, d.Address)
	}
	args = append(args, "-netdev", netdev, "-device", "virtio-net-pci,netdev=net,romfile=")
	return name, append(args, m.opts.Args...)
}

// kvm tells whether the processor itself can run the machine. A /dev/kvm without the
// hardware's module behind it (kvm_pvm, in a virtual machine) hangs in the BIOS.
func kvm(arch string) bool {
	if arch != runtime.GOARCH {
		return false
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = f.Close()
	if arch == "arm64" {
		return true
	}
	for _, module := range []string{"kvm_intel", "kvm_amd"} {
		if _, err := os.Stat("/sys/module/" + module); err == nil {
			return true
		}
	}
	return false
}

// Cut takes the power away.
func (m *Machine) Cut() {
	if m.cmd == nil || m.cmd.Process == nil {
		return // it never began
	}
	_ = m.cmd.Process.Kill()
	<-m.done
	if m.talk != nil {
		m.talk.close()
	}
}

// Shutdown turns the machine off in order, and tells how long that took.
func (m *Machine) Shutdown(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	// The agent is killed meanwhile: no answer is one, too.
	_, _ = m.Run(ctx, Cmd{Args: []string{"systemctl", "--no-block", "poweroff"}, Timeout: 20 * time.Second})
	select {
	case <-m.done:
		m.talk.close()
		return time.Since(begin), nil
	case <-time.After(bootLimit):
		m.Cut()
		return time.Since(begin), fmt.Errorf("the machine did not turn off\n%s", m.Console())
	case <-ctx.Done():
		m.Cut()
		return time.Since(begin), fmt.Errorf("the machine did not turn off: %w\n%s", ctx.Err(), m.Console())
	}
}

// Restarted waits until the machine starts anew by itself, or turns off, and turns it on
// again: QEMU ends at a restart.
func (m *Machine) Restarted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	select {
	case <-m.done:
		m.talk.close()
		return m.Boot(ctx)
	case <-ctx.Done():
		return fmt.Errorf("the machine goes on to run: %w\n%s", ctx.Err(), m.Console())
	}
}

// Reboot turns it off in order, and on again.
func (m *Machine) Reboot(ctx context.Context) error {
	if _, err := m.Shutdown(ctx); err != nil {
		return err
	}
	return m.Boot(ctx)
}

// Close takes the power away and removes the disk; the console's words stay.
func (m *Machine) Close() {
	m.Cut()
	_ = os.RemoveAll(filepath.Dir(m.socket))
	for _, n := range []string{"disk", "agent", "part"} {
		_ = os.Remove(filepath.Join(m.opts.Dir, n))
	}
}

// Console gives the last 4 KiB that the machine wrote on its serial line.
func (m *Machine) Console() string { return m.words("console") }

func (m *Machine) words(name string) string {
	b, _ := os.ReadFile(filepath.Join(m.opts.Dir, name))
	return string(b[max(0, len(b)-4096):])
}
