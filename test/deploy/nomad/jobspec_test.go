package nomad_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
	"github.com/stretchr/testify/require"
)

// parse reads a job as `nomad job run` does, with values for its variables, and fills in
// what Nomad defaults.
func parse(path string, vars ...string) (*api.Job, error) {
	cmd := exec.Command(parser, append([]string{path}, vars...)...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, &problems)
	}
	job := &api.Job{}
	dec := json.NewDecoder(&out)
	dec.DisallowUnknownFields() // or test/nomad has another version of the types
	if err := dec.Decode(job); err != nil {
		return nil, fmt.Errorf("%s as JSON: %w", path, err)
	}
	job.Canonicalize()
	return job, nil
}

// What is not Nomad's is refused, with its place.
func TestWhatIsWrittenWrongIsRefused(t *testing.T) {
	src, err := os.ReadFile(folder + "/logd.nomad.hcl")
	require.NoError(t, err)
	for old, wrong := range map[string]string{
		`max_parallel      = 1`:        `max_parallels = 1`,
		`healthy_deadline  = "10m"`:    `healthy_deadline = "10 minutes"`,
		`count = 3`:                    `count = "three"`,
		`constraint {`:                 `constrain {`,
		`port "rpc" { static = 8400 }`: `port { static = 8400 }`,
		`check_restart {`:              `check_restarts {`,
		`kill_timeout = "45s"`:         `kill_timout = "45s"`,
		`var.image`:                    `var.picture`,
		`file("logd.hcl")`:             `file("logproxyd.hcl")`,
		`driver = "docker"`:            `driver = ["docker"]`,
		`volume "data" {`:              `volume {`,
		`join(",", var.join)`:          `concatenate(",", var.join)`,
		`  group "node" {`:             "}\n  group \"node\" {",
	} {
		require.Equal(t, 1, min(1, strings.Count(string(src), old)), old)
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS(folder)))
		path := filepath.Join(dir, "logd.nomad.hcl")
		require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(src), old, wrong, 1)), 0o600))
		_, err := parse(path, variables["logd"]...)
		require.ErrorContains(t, err, "logd.nomad.hcl:", "%s", wrong)
	}
	_, err = parse(folder + "/logd.nomad.hcl")
	require.ErrorContains(t, err, `Unset variable "image"`)
	_, err = parse(folder+"/app.nomad.hcl", variables["logd"]...)
	require.ErrorContains(t, err, `Undefined -var variable`)
}
