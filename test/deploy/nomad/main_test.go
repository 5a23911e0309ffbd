package nomad_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/logd-io/logd/test/deploy/program"
)

const (
	repo   = "../../.."
	folder = repo + "/deploy/nomad"
)

var (
	programs *program.Programs
	parser   string // test/nomad, built
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err == nil && code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "logd-nomad-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if programs, err = program.Build(dir); err != nil {
		return 0, err
	}
	parser = filepath.Join(dir, "parse-job") // not called nomad, which the page's commands must not find
	build := exec.Command("go", "build", "-buildvcs=false", "-o", parser, ".")
	build.Dir = filepath.Join(repo, "test/nomad")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	return m.Run(), nil
}
