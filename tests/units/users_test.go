// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package units

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/inference/enginetest"
	"fulmar/internal/exetest"
	"fulmar/tests/local"
)

// Users that no system has: fulmard's, the worker's with fulmard's group, and one that
// has no business here.
const (
	fulmardUser  = 61001
	workerUser   = 61002
	strangerUser = 61003
)

// strangerEnv makes the test binary one that knocks at a socket.
const strangerEnv = "FULMAR_UNITS_STRANGER"

func TestMain(m *testing.M) {
	if path := os.Getenv(strangerEnv); path != "" {
		c, err := net.Dial("unix", path)
		if err != nil {
			fmt.Println(err)
			os.Exit(0)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		b, _ := io.ReadAll(io.LimitReader(c, 4096))
		fmt.Printf("%q\n", b)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// as runs a program as another user, with the umask of the units.
func as(t *testing.T, uid int, script string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", "umask 027; " + script, "sh"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: fulmardUser}, Pdeathsig: syscall.SIGKILL,
	}
	cmd.Dir, cmd.Env = "/", []string{"HOME=/nonexistent"}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	return cmd
}

// start runs it until the end of the test.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // killed by a signal, or not: the checks are over
	})
}

// copyFile puts a program where every user can run it.
func copyFile(t *testing.T, from, to string) string {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = exetest.Write(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// The real programs as two users, with the socket handed over as systemd does it: a
// picture comes from the worker's user to the fleet and leaves the folder, and a
// stranger is refused by the worker even where the socket's mode would let it in.
func TestTwoUsers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("only root may start programs as other users")
		}
		t.Skip("only root may start programs as other users")
	}
	lib := enginetest.Library(t)
	if _, err := os.Stat("../../bin/fulmard"); err != nil {
		t.Fatalf("%v: run make build", err)
	}
	dir, err := os.MkdirTemp("", "fu") // short names of sockets, and open to all
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fulmard := copyFile(t, "../../bin/fulmard", filepath.Join(dir, "fulmard"))
	infer := copyFile(t, "../../bin/fulmar-infer", filepath.Join(dir, "fulmar-infer"))
	lib = copyFile(t, lib, filepath.Join(dir, "libonnxruntime.so.1"))
	site, config, socket := twoUserSite(t, dir)

	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if err := os.Chown(socket, fulmardUser, fulmardUser); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		t.Fatal(err)
	}
	handed, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer handed.Close()
	start(t, as(t, fulmardUser, `exec "$@"`, fulmard, "run", "--config", config))
	worker := as(t, workerUser, `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, infer, "--ort", lib, "--client", fmt.Sprint(fulmardUser))
	worker.ExtraFiles = []*os.File{handed}
	start(t, worker)

	pictures := filepath.Join(site.BoardDir("b1"), "pictures")
	var owner string
	wait(t, "a picture of the worker's user at the fleet", func() bool {
		for _, st := range files(pictures) {
			sys := st.Sys().(*syscall.Stat_t)
			owner = fmt.Sprintf("%d:%d %v", sys.Uid, sys.Gid, st.Mode())
		}
		return strings.HasPrefix(owner, fmt.Sprintf("%d:%d -rw-r-----", workerUser, fulmardUser)) && len(files(filepath.Join(site.Dir, "fleet", "pictures"))) > 2
	})
	wait(t, "fulmard to have removed what was sent", func() bool { return len(files(pictures)) < 3 })

	knock := as(t, strangerUser, `exec "$@"`, copyFile(t, os.Args[0], filepath.Join(dir, "stranger")))
	knock.Env, knock.Stdout = append(knock.Env, strangerEnv+"="+socket), nil
	if out, err := knock.Output(); err != nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("by the socket's mode: %s, %v", out, err)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	again := as(t, strangerUser, `exec "$@"`, knock.Args[len(knock.Args)-1])
	again.Env, again.Stdout = knock.Env, nil
	if out, err := again.Output(); err != nil || !strings.Contains(string(out), fmt.Sprintf("user id %d", strangerUser)) {
		t.Errorf("by the worker: %s, %v", out, err)
	}
}

// twoUserSite starts a fleet and prepares a board whose files are fulmard's.
func twoUserSite(t *testing.T, dir string) (site *local.Site, config, socket string) {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	if site, err = local.New(dir, bin, ""); err != nil {
		t.Fatal(err)
	}
	if err := site.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(site.Fleet.Kill)
	socket = filepath.Join(dir, "w.sock")
	config, err = site.PrepareBoard(local.Board{
		Name: "b1", NoInfer: true,
		Extra: local.SceneYAML + fmt.Sprintf("infer: {mode: unit, socket: %q, threads: 1}\n", socket),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{config, site.BoardDir("b1"), filepath.Join(site.BoardDir("b1"), "join.token")} {
		if err := os.Chown(path, fulmardUser, fulmardUser); err != nil {
			t.Fatal(err)
		}
	}
	// As the units' tmpfiles do.
	if err := os.Chmod(site.BoardDir("b1"), 0o750); err != nil {
		t.Fatal(err)
	}
	return site, config, socket
}

// wait looks again and again, for a minute.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// files are the pictures under a folder.
func files(dir string) (all []fs.FileInfo) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, ".jpg") {
			if st, err := d.Info(); err == nil {
				all = append(all, st)
			}
		}
		return nil // one that vanished meanwhile
	})
	return all
}
