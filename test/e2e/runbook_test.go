package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// happen is what nobody types.
func (s *site) happen(what string) {
	s.t.Helper()
	verb, place, _ := strings.Cut(what, " ")
	data := filepath.Join(s.dir, place, "var/lib/logd/data")
	switch verb {
	case "lose": // the machine, with its disk
		s.kill(place)
		require.NoError(s.t, os.RemoveAll(filepath.Join(s.dir, place)))
		s.machine(place)
	case "readdress": // the name leads elsewhere from now on
		s.at[place] += 50
		s.names()
	case "fill": // its disk, by asking for more space than there is, but not twice as much
		var fs syscall.Statfs_t
		require.NoError(s.t, syscall.Statfs(s.dir, &fs))
		s.env[place] = append(s.env[place], fmt.Sprintf("LOGD_LOG_RESERVE=%dMiB", fs.Bavail*uint64(fs.Bsize)*3/2>>20))
		require.NoError(s.t, s.unit(place, "restart", "logd"))
		s.ready(place)
	case "free":
		s.env[place] = slices.DeleteFunc(s.env[place], func(v string) bool { return strings.HasPrefix(v, "LOGD_LOG_RESERVE=") })
		require.NoError(s.t, s.unit(place, "restart", "logd"))
		s.ready(place)
	case "damage": // a bit in the middle of what is written
		names, err := filepath.Glob(filepath.Join(data, "raft", "log", "*.seg"))
		require.NoError(s.t, err)
		require.NotEmpty(s.t, names)
		text := fileText(s.t, names[0])
		at := strings.Index(text, "first")
		require.Positive(s.t, at, "the first record is in the first segment")
		write(s.t, names[0], int64(at), []byte{text[at] ^ 16})
	case "diverge": // as pkg/replica marks it
		s.kill(place)
		id := s.id(place)
		mark := fmt.Sprintf(`{"node":%q,"index":7,"own":1,"majority":2,"votes":2,"voters":3}`+"\n", id)
		require.NoError(s.t, os.WriteFile(filepath.Join(data, "raft", "diverged"), []byte(mark), 0o600))
		s.ledWithout(id) // it hands on before it ends
	default:
		s.t.Fatalf("%s: nobody knows how to %s", s.doc, what)
	}
}

func (s *site) ready(place string) {
	s.t.Helper()
	s.until(place+" is ready", func() error {
		out, err := s.shell(place, s.here(place, "curl -s 127.0.0.1:8402/readyz"))
		if err == nil && out != "ready\n" {
			err = errors.New(out)
		}
		return err
	})
}

// shows says which line of a block `text` is not in what was written, in its turn.
func shows(want []string, got string) error {
	rest := got
	for _, line := range want {
		words := strings.Fields(line)
		for i := range words {
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(words[i]), "…", ".*")
		}
		at := regexp.MustCompile(`(?m)^\s*` + strings.Join(words, `[ \t]+`) + `\s*$`).FindStringIndex(rest)
		if at == nil {
			return fmt.Errorf("it does not show\n%s\nin\n%s", line, got)
		}
		rest = rest[at[1]:]
	}
	return nil
}

// play runs the document.
func (s *site) play() {
	s.t.Helper()
	blocks := docBlocks(s.t, s.doc)
	shown := "" // by the last commands
	for i, b := range blocks {
		if b.info == "test" {
			s.happen(b.body[0])
			continue
		}
		if b.info == "text" {
			require.NoError(s.t, shows(b.body, shown), "%s:%d", s.doc, b.line)
			continue
		}
		place, isShell := b.shell()
		if !isShell || strings.HasPrefix(place, "not run: ") {
			continue
		}
		places := strings.Fields(place)
		how := places[len(places)-1]
		if how == "until" || how == "fails" {
			places = places[:len(places)-1]
		} else {
			how = ""
		}
		once := func() (string, error) {
			var out bytes.Buffer
			for _, place := range places {
				require.DirExists(s.t, filepath.Join(s.dir, place), "%s:%d: no such machine", s.doc, b.line)
				for _, line := range b.commands() {
					text, err := s.run(place, line)
					out.WriteString(text)
					if err != nil {
						return out.String(), fmt.Errorf("%s:%d: on %s: %s\n%s%w", s.doc, b.line, place, line, out.String(), err)
					}
				}
			}
			return out.String(), nil
		}
		began := time.Now()
		var err error
		switch how {
		case "until":
			require.Equal(s.t, "text", blocks[i+1].info, "%s:%d: until what?", s.doc, b.line)
			s.until(fmt.Sprintf("%s:%d", s.doc, b.line), func() error {
				if shown, err = once(); err != nil {
					return err
				}
				return shows(blocks[i+1].body, shown)
			})
		case "fails":
			shown, err = once()
			require.Error(s.t, err, "%s:%d: it does not fail:\n%s", s.doc, b.line, shown)
		default:
			shown, err = once()
			require.NoError(s.t, err)
		}
		s.t.Logf("%s:%d on %s, %.1f s\n%s", s.doc, b.line, place, time.Since(began).Seconds(), shown)
	}
}

// TestLongClusterRunbook runs what docs/ops/cluster.md says an operator does: the whole
// life of a cluster, from its first certificate to the day that two of three are lost.
func TestLongClusterRunbook(t *testing.T) {
	t.Parallel()
	long(t)
	s := newSite(t, "docs/ops/cluster.md", 8*time.Minute)
	s.play()
	require.Subset(t, slices.Collect(maps.Keys(s.services)), []string{"node1", "node2", "node3", "node4", "node5", "proxy1"})
}
