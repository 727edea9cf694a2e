package mayfly

// A real issuer for the tests, `mayfly dev` in a temporary folder with a guard beside it; and programs under `mayfly run`, which are
// this test binary again.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	search = "https://search.example"
	files  = "https://files.example"
	domain = "spiffe://dev.mayfly.test"
	quick  = `
[[classes]]
name = "quick"
owner = "tests"
scopes = ["search:read", "files:read"]
audiences = ["https://search.example", "https://files.example"]
svid_ttl = "10s"
max_lease = "10m"
max_depth = 3
modes = ["delegated"]
spawners = ["workload/orchestrator", "class/quick"]

[[classes]]
name = "thrifty"
owner = "finance"
scopes = ["search:read"]
audiences = ["https://search.example"]
budget = { ops = 10 }
svid_ttl = "5m"
max_lease = "10m"
modes = ["delegated"]
spawners = ["workload/orchestrator"]
`
)

var dev struct {
	folder, binary, address string
	issuer, guard           *exec.Cmd
	workload                *Identity
}

func TestMain(m *testing.M) {
	if name := os.Getenv("MAYFLY_TEST_PROGRAM"); name != "" {
		if err := programs[name](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	for _, name := range []string{"MAYFLY_HOME", "MAYFLY_SERVER", "MAYFLY_TICKET", "SPIFFE_ENDPOINT_SOCKET"} {
		os.Unsetenv(name)
	}
	code, err := withDev(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withDev(m *testing.M) (code int, err error) {
	if dev.binary = os.Getenv("MAYFLY"); dev.binary == "" {
		return 1, fmt.Errorf("set MAYFLY to the mayfly binary")
	}
	if dev.folder, err = os.MkdirTemp("", "mayfly-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(dev.folder)
	if err := os.WriteFile(filepath.Join(dev.folder, "more.toml"), []byte(quick), 0o600); err != nil {
		return 1, err
	}
	if dev.issuer, err = ready("dev", "--config", "more.toml"); err != nil {
		return 1, err
	}
	defer stop(dev.issuer)
	text, err := os.ReadFile(filepath.Join(dev.folder, ".mayfly/endpoint.json"))
	if err != nil {
		return 1, err
	}
	var endpoint struct {
		Address string `json:"grpc"`
	}
	if err := json.Unmarshal(text, &endpoint); err != nil {
		return 1, err
	}
	dev.address = endpoint.Address
	token, err := cli("join", "guard")
	if err != nil {
		return 1, err
	}
	if err := os.WriteFile(filepath.Join(dev.folder, "t"), []byte(token), 0o600); err != nil {
		return 1, err
	}
	if _, err := cli("redeem", "--ticket-file", "t", "--out", "g"); err != nil {
		return 1, err
	}
	if dev.guard, err = ready("guard", "--as", "g", "--listen", "unix:"+guardSocket()); err != nil {
		return 1, err
	}
	defer stop(dev.guard)
	if dev.workload, err = OpenWorkload(filepath.Join(dev.folder, ".mayfly/workloads/orchestrator")); err != nil {
		return 1, err
	}
	defer dev.workload.Close()
	return m.Run(), nil
}

func guardSocket() string { return filepath.Join(dev.folder, "guard.sock") }

// Starts `mayfly` and waits until it says that it is ready.
func ready(args ...string) (*exec.Cmd, error) {
	command := exec.Command(dev.binary, args...)
	command.Dir, command.Stderr = dev.folder, os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "ready") {
			go io.Copy(io.Discard, out)
			return command, nil
		}
	}
	return nil, fmt.Errorf("mayfly %v did not start: %v", args, command.Wait())
}

func stop(command *exec.Cmd) {
	_ = command.Process.Signal(syscall.SIGCONT)
	_ = command.Process.Signal(syscall.SIGTERM)
	_ = command.Wait()
}

// The issuer answers nobody until the test is over, or until what this returns is called.
func pause(t *testing.T) func() {
	t.Helper()
	check(t, dev.issuer.Process.Signal(syscall.SIGSTOP))
	resume := func() { _ = dev.issuer.Process.Signal(syscall.SIGCONT) }
	t.Cleanup(resume)
	return resume
}

func cli(args ...string) (string, error) {
	command := exec.Command(dev.binary, args...)
	var errors bytes.Buffer
	command.Dir, command.Stderr = dev.folder, &errors
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("mayfly %v: %w: %s", args, err, errors.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func mayfly(t *testing.T, args ...string) string {
	t.Helper()
	out, err := cli(args...)
	check(t, err)
	return out
}

// An agent of the workload for a user, which is ended with the test.
func agent(t *testing.T, class, user string, asked Asked) *Identity {
	t.Helper()
	asked.UserToken = mayfly(t, "token", user)
	spawned, err := dev.workload.Spawn(t.Context(), class, asked)
	check(t, err)
	t.Cleanup(func() {
		_ = spawned.End(context.Background())
		spawned.Close()
	})
	return spawned
}

// Starts one of the programs under `mayfly run`, in an environment that says nothing about where the issuer is but what is given.
func run(t *testing.T, class, program string, environment ...string) *exec.Cmd {
	t.Helper()
	token := filepath.Join(t.TempDir(), "user.jwt")
	check(t, os.WriteFile(token, []byte(mayfly(t, "token", "demo")), 0o600))
	args := []string{"run", "--class", class, "--user-token", token, "--grace", "20", "--", "env", "-u", "MAYFLY_SERVER", "MAYFLY_HOME=none", "MAYFLY_TEST_PROGRAM=" + program}
	command := exec.Command(dev.binary, append(append(args, environment...), os.Args[0])...)
	command.Dir, command.Stderr = dev.folder, os.Stderr
	return command
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%v is not %v", got, want)
	}
}

// Waits for a condition, at most for half a minute.
func until(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came true")
		}
	}
}
