package nomad_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/nomad/api"
	"github.com/stretchr/testify/require"
)

// variables are values for those of each job, by the first part of its file's name.
var variables = map[string][]string{
	"logd":       {"image=logd:dev", `join=["10.0.0.1:8401","10.0.0.2:8401"]`},
	"app":        {"image=logd:dev"},
	"batch":      {"image=logd:dev"},
	"system":     {"image=logd:dev"},
	"prometheus": nil,
}

var shipped = sync.OnceValues(func() (map[string]*api.Job, error) {
	files, err := filepath.Glob(folder + "/*.nomad.hcl")
	if err != nil {
		return nil, err
	}
	all := map[string]*api.Job{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".nomad.hcl")
		if name == "client" {
			continue
		}
		vars, ok := variables[name]
		if !ok {
			return nil, fmt.Errorf("nobody knows the variables of %s", file)
		}
		if all[name], err = parse(file, vars...); err != nil {
			return nil, err
		}
	}
	return all, nil
})

// jobs are all that ship, by the first part of their file's name.
func jobs(t *testing.T) map[string]*api.Job {
	t.Helper()
	all, err := shipped()
	require.NoError(t, err)
	require.Len(t, all, len(variables))
	return all
}

func group(t *testing.T, j *api.Job) *api.TaskGroup {
	t.Helper()
	require.Len(t, j.TaskGroups, 1)
	return j.TaskGroups[0]
}

// A place is one task of a job.
type place struct {
	job   string // its file
	id    string // the job's
	group *api.TaskGroup
	*api.Task
}

// argv is what a task runs.
func (p place) argv(t *testing.T) []string {
	t.Helper()
	argv := []string{p.Config["command"].(string)}
	for _, a := range p.Config["args"].([]any) {
		argv = append(argv, a.(string))
	}
	return argv
}

// ours are the tasks that run one of our programs.
func ours(t *testing.T) (all []place) {
	t.Helper()
	jobs := jobs(t)
	for _, name := range slices.Sorted(maps.Keys(jobs)) {
		g := group(t, jobs[name])
		for _, task := range g.Tasks {
			if task.Config["command"] != nil {
				all = append(all, place{name, *jobs[name].ID, g, task})
			}
		}
	}
	require.Len(t, all, 8)
	return all
}

// agents are those of ours that are an agent.
func agents(t *testing.T) (all []place) {
	t.Helper()
	for _, p := range ours(t) {
		if p.argv(t)[1] == "agent" {
			all = append(all, p)
		}
	}
	require.Len(t, all, 4)
	return all
}
