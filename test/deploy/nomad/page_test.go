package nomad_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docs/ops/nomad.md stores what the templates read, and names every file.
func TestThePage(t *testing.T) {
	text, err := os.ReadFile(repo + "/docs/ops/nomad.md")
	require.NoError(t, err)
	page := string(text)
	files, err := os.ReadDir(folder)
	require.NoError(t, err)
	for _, f := range files {
		require.Contains(t, page, "`"+f.Name()+"`")
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(page, -1) {
		_, err := os.Stat(filepath.Join(repo, "docs/ops", m[1]))
		require.NoError(t, err)
	}
	put := regexp.MustCompile(`(?m)^nomad var put (nomad/jobs/\S+)(.*)$`)
	items := map[string][]string{}
	for _, m := range put.FindAllStringSubmatch(page, -1) {
		for item := range strings.FieldsSeq(m[2]) {
			key, from, ok := strings.Cut(item, "=")
			require.True(t, ok, item)
			require.True(t, strings.HasPrefix(from, "@"), item)
			items[m[1]] = append(items[m[1]], key)
		}
	}
	for _, p := range agents(t) {
		vars := map[string]map[string]string{}
		for path, keys := range items {
			vars[path] = map[string]string{"host": "CERT", "host-key": "KEY"} // by the page, node1 and so on
			for _, key := range keys {
				vars[path][key] = key
			}
		}
		for _, tmpl := range p.Templates {
			require.NotEmpty(t, strings.TrimSpace(render(t, *tmpl.EmbeddedTmpl, vars)), *tmpl.DestPath)
		}
	}
	for _, host := range []string{"node1", "node2", "node3"} {
		require.Contains(t, items["nomad/jobs/logd"], host)
		require.Contains(t, items["nomad/jobs/logd"], host+"-key")
	}
}

// The page's commands: logd's are run; nomad's take the jobs that ship, with
// variables they have, and files that are there by then.
func TestThePagesCommands(t *testing.T) {
	text, err := os.ReadFile(repo + "/docs/ops/nomad.md")
	require.NoError(t, err)
	desk := t.TempDir()
	n := 0
	parts := strings.Split("\n"+string(text), "\n```")
	require.Equal(t, 1, len(parts)%2, "a fence is open")
	for i := 1; i < len(parts); i += 2 {
		info, body, _ := strings.Cut(parts[i], "\n")
		require.Equal(t, "sh nomad", info, "a block that nobody runs")
		for line := range strings.SplitSeq(body, "\n") {
			n++
			words := strings.Fields(line)
			switch {
			case strings.HasPrefix(line, "nomad var put nomad/jobs/"):
				for _, item := range words[4:] {
					_, file, ok := strings.Cut(item, "=@")
					require.True(t, ok, item)
					require.FileExists(t, filepath.Join(desk, file))
				}
			case strings.HasPrefix(line, "nomad job run "):
				var vars []string
				for words = words[3:]; words[0] == "-var"; words = words[2:] {
					vars = append(vars, strings.Trim(words[1], "'"))
				}
				require.Len(t, words, 1)
				_, err := parse(filepath.Join(folder, words[0]), vars...)
				require.NoError(t, err)
			case strings.HasPrefix(line, "nomad alloc exec -job -task "):
				require.Greater(t, len(words), 6)
				require.Contains(t, tasksOf(t, words[6]), words[5], line)
				_, _, err := programs.Check(words[7:])
				require.NoError(t, err)
			case strings.HasPrefix(line, "logd operator "): // needs a cluster
				_, _, err := programs.Check(words)
				require.NoError(t, err)
			default:
				cmd := exec.Command("/bin/sh", "-ec", line)
				cmd.Dir, cmd.Env = desk, []string{"PATH=" + programs.Dir()}
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s\n%s", line, out)
			}
		}
	}
	require.Greater(t, n, 15)
}

// tasksOf are the names of a job's tasks.
func tasksOf(t *testing.T, job string) (names []string) {
	t.Helper()
	for _, p := range agents(t) {
		if p.id == job {
			names = append(names, p.Name)
		}
	}
	return names
}

// What README.md shows of a job is one of Nomad's, with our flags.
func TestTheReadmesTask(t *testing.T) {
	readme, err := os.ReadFile(repo + "/README.md")
	require.NoError(t, err)
	m := regexp.MustCompile("(?s)\n```hcl nomad\n(.*?)\n```").FindSubmatch(readme)
	require.NotNil(t, m)
	file := filepath.Join(t.TempDir(), "app.nomad.hcl")
	require.NoError(t, os.WriteFile(file, []byte("job \"app\" {\ngroup \"app\" {\n"+string(m[1])+"\n}\n}\n"), 0o600))
	job, err := parse(file)
	require.NoError(t, err)
	task := group(t, job).Tasks[0]
	require.True(t, task.Lifecycle.Sidecar)
	require.Equal(t, "prestart", task.Lifecycle.Hook)
	argv := []string{task.Config["command"].(string)}
	for _, a := range task.Config["args"].([]any) {
		argv = append(argv, a.(string))
	}
	_, _, err = programs.Check(argv)
	require.NoError(t, err)
}
