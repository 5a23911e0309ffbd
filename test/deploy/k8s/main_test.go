package k8s_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/logd-io/logd/test/deploy/program"
)

// repo is the checkout, from here.
const repo = "../../.."

var update = flag.Bool("update", false, "copy deploy/prometheus's rules to where Kubernetes needs them")

// programs are the programs under test.
var programs *program.Programs

func TestMain(m *testing.M) {
	// In the place of a tool, for the commands of docs/ops/kubernetes.md.
	tools := map[string]func([]string) error{"kubectl": kubectl, "helm": helmCommand}
	if tool, ok := tools[filepath.Base(os.Args[0])]; ok {
		if err := tool(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
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
	flag.Parse()
	dir, err := os.MkdirTemp("", "logd-k8s-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if programs, err = program.Build(dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}
