package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
)

const inspectedCluster = "0f0e0d0c-0b0a-4908-8706-050403020100"

// runNode runs a node alone over a data directory until use returns. voters,
// when given, begins its cluster with them.
func runNode(t *testing.T, home string, cluster string, voters []string, use func(r *replica.Replica)) string {
	t.Helper()
	id, err := replica.LoadNodeID(vfs.OS{}, home, "n1")
	require.NoError(t, err)
	r, err := replica.Open(replica.Config{
		ID: id, FS: vfs.OS{}, Dir: filepath.Join(home, raftDir), SegmentBytes: 1 << 20, Heartbeat: time.Second, ScrubRate: 1 << 20,
		Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("alone") },
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	if voters != nil {
		require.NoError(t, r.Bootstrap(ctx, cluster, append([]string{id}, voters...)))
	}
	for !r.View().IsLeader && len(voters) == 0 {
		<-r.Changes()
	}
	if use != nil {
		use(r)
	}
	cancel()
	require.NoError(t, <-ended)
	require.NoError(t, r.Close())
	return id
}

func produceTo(t *testing.T, r *replica.Replica, records ...*logv1.Record) {
	t.Helper()
	var b []byte
	for _, rec := range records {
		raw, err := proto.Marshal(rec)
		require.NoError(t, err)
		b = protowire.AppendBytes(b, raw)
	}
	p, err := r.Submit(replica.Batch{Count: uint32(len(records)), Records: b, Timestamp: records[0].GetTimestamp()})
	require.NoError(t, err)
	_, err = p.Wait(t.Context())
	require.NoError(t, err)
}

// stoppedNode is a data directory with 30 records in it.
func stoppedNode(t *testing.T) (home, id string) {
	t.Helper()
	home = filepath.Join(t.TempDir(), "n1")
	id = runNode(t, home, inspectedCluster, []string{}, func(r *replica.Replica) {
		for i := range int64(10) {
			produceTo(t, r,
				&logv1.Record{Value: fmt.Appendf(nil, "value %d", 3*i), Key: []byte("k"), Timestamp: i + 1},
				&logv1.Record{Value: []byte{0xff}, Timestamp: i + 1, Headers: []*logv1.Header{{Key: "h", Value: []byte("v")}}},
				&logv1.Record{Value: fmt.Appendf(nil, "value %d", 3*i+2), Timestamp: i + 1})
		}
		require.Eventually(t, func() bool { return r.Stats().Scrub.Passes > 0 }, time.Minute, time.Millisecond)
	})
	return home, id
}

// contents are all files below dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	}))
	return all
}

func TestInspectLooksAndChangesNothing(t *testing.T) {
	home, id := stoppedNode(t)
	before := contents(t, home)

	var d inspected
	got := logd(t, "", "inspect", "list", "-format", "json", home)
	require.Equal(t, 0, got.code, got.stderr)
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &d))
	require.Equal(t, []string{id, inspectedCluster}, []string{d.NodeID, d.Cluster})
	require.Equal(t, uint64(30), d.NextStart.Next)
	require.Equal(t, d.NextStart.Last, d.NextStart.CommitKnown)
	require.Len(t, d.Segments, 1)
	require.Equal(t, d.NextStart.Last, d.Segments[0].Last)
	require.Empty(t, d.Damage)
	require.Equal(t, uint64(1), d.Scrub.Passes)
	got = logd(t, "", "inspect", "list", home)
	require.Equal(t, 0, got.code, got.stderr)
	require.Regexp(t, `Scrubs: 1, the newest finished 20`, got.stdout)
	require.Contains(t, got.stdout, id)
	require.Contains(t, got.stdout, "[0, 30)")

	got = logd(t, "", "inspect", "verify", home)
	require.Equal(t, 0, got.code, got.stdout)
	require.Contains(t, got.stdout, "30 records")
	require.Contains(t, got.stdout, "0 damaged places")

	got = logd(t, "", "inspect", "dump", "-offsets", "4-4", "-records", "-format", "json", home)
	require.Equal(t, 0, got.code, got.stderr)
	var e dumpedEntry
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &e), got.stdout)
	require.Equal(t, "data", e.Type)
	require.Len(t, e.Batches, 1)
	require.Equal(t, uint64(3), *e.Batches[0].Offset)
	require.Equal(t, "accepted", e.Batches[0].Verdict)
	records := e.Batches[0].Records
	require.Len(t, records, 3)
	require.Equal(t, "value 3", records[0].Value.Text)
	require.Equal(t, "k", records[0].Key.Text)
	require.Equal(t, []byte{0xff}, records[1].Value.Base64)
	require.Equal(t, "h", records[1].Headers[0].Key)
	require.Equal(t, uint64(5), records[2].Offset)
	got = logd(t, "", "inspect", "dump", "-records", home)
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, 30, strings.Count(got.stdout, `"offset":`))
	require.Contains(t, got.stdout, "configuration")
	require.Contains(t, got.stdout, "cluster "+inspectedCluster)
	got = logd(t, "", "inspect", "dump", "-entries", "3-5", "-format", "json", home)
	require.Equal(t, 3, strings.Count(got.stdout, "\n"))

	require.Equal(t, before, contents(t, home))
}

func TestInspectTellsOfDamage(t *testing.T) {
	home, _ := stoppedNode(t)
	names, err := filepath.Glob(filepath.Join(home, raftDir, "log", "*.seg"))
	require.NoError(t, err)
	require.Len(t, names, 1)
	f, err := os.OpenFile(names[0], os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("damage"), 700)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	before := contents(t, home)
	for _, args := range [][]string{{"verify", home}, {"verify", "-format", "json", home}} {
		got := logd(t, "", append([]string{"inspect"}, args...)...)
		require.Equal(t, 1, got.code)
		require.Contains(t, got.stdout, names[0])
		require.Contains(t, got.stdout, "before peers have repaired it")
	}
	got := logd(t, "", "inspect", "dump", home)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "inspect verify")
	got = logd(t, "", "inspect", "export", "-o", filepath.Join(t.TempDir(), "x"), home)
	require.Equal(t, 1, got.code)
	got = logd(t, "", "recover", "-yes", home)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "would not start")
	require.Equal(t, before, contents(t, home))
}

func TestInspectRefusesWhatIsNoStoppedNode(t *testing.T) {
	home := filepath.Join(t.TempDir(), "n1")
	runNode(t, home, inspectedCluster, []string{}, func(*replica.Replica) {
		for _, args := range [][]string{
			{"inspect", "list"}, {"inspect", "dump"}, {"inspect", "verify"}, {"inspect", "export"}, {"recover", "-yes"},
		} {
			got := logd(t, "", append(args, home)...)
			require.Equal(t, 1, got.code, args)
			require.Contains(t, got.stderr, "in use by a running node")
			got = logd(t, "", append(args, t.TempDir())...)
			require.Equal(t, 1, got.code, args)
			require.Contains(t, got.stderr, "no data directory of a node")
			got = logd(t, "", args...)
			require.Equal(t, 2, got.code, args)
		}
	})
}

func TestExportAndImportThroughFiles(t *testing.T) {
	home, _ := stoppedNode(t)
	file := filepath.Join(t.TempDir(), "backup.logd")
	got := logd(t, "", "inspect", "export", "-o", file, "-from", "2", home)
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stderr, "[2, 30)")
	require.Equal(t, 1, logd(t, "", "inspect", "export", "-o", file, home).code, "the file is there")
	require.Equal(t, 2, logd(t, "", "inspect", "import", "-i", file, t.TempDir()).code, "no name")
	require.Equal(t, 1, logd(t, "", "inspect", "import", "-i", file, "-name", "n1", home).code, "not empty")

	whole, err := os.ReadFile(file)
	require.NoError(t, err)
	made := filepath.Join(t.TempDir(), "bad")
	require.NoError(t, os.WriteFile(file+".cut", whole[:len(whole)-1], 0o600))
	got = logd(t, "", "inspect", "import", "-i", file+".cut", "-name", "n1", made)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "not a whole export")
	require.NoDirExists(t, made, "a file is checked before anything is made")

	made = filepath.Join(t.TempDir(), "m1")
	got = logd(t, string(whole), "inspect", "import", "-name", "n1", "-format", "json", made)
	require.Equal(t, 0, got.code, got.stderr)
	var s importedShown
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &s))
	require.Equal(t, []uint64{2, 30}, []uint64{s.First, s.Next})
	require.NotEqual(t, inspectedCluster, s.Cluster)
	want := logd(t, "", "inspect", "dump", "-records", home)
	have := logd(t, "", "inspect", "dump", "-records", made)
	require.Equal(t, recordLines(want.stdout)[2:], recordLines(have.stdout))
	runNode(t, made, "", nil, func(r *replica.Replica) {
		require.Equal(t, uint64(2), r.Log().Lowest())
		produceTo(t, r, &logv1.Record{Value: []byte("after"), Timestamp: 99})
		require.Equal(t, uint64(31), r.Log().Visible())
	})
}

// recordLines are the records of a dump, wherever they are.
func recordLines(dump string) (lines []string) {
	for l := range strings.Lines(dump) {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "{") {
			lines = append(lines, l)
		}
	}
	return lines
}

func TestRecoverAsksAndThenGoesOn(t *testing.T) {
	home, id := stoppedNode(t)
	// Two more voters, which are gone for good.
	other := filepath.Join(t.TempDir(), "other.json")
	d := inspected{DataDir: "/elsewhere", NodeID: "n2.00000002", Cluster: inspectedCluster, NextStart: inspectedNext{Last: 1000, LastTerm: 99}}
	b, err := json.Marshal(d)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(other, b, 0o600))
	before := contents(t, home)
	got := logd(t, "", "recover", "-dry-run", "-compare", other, home)
	require.Equal(t, 0, got.code, got.stderr)
	require.Regexp(t, `n2.00000002 .*has the most`, got.stdout)
	got = logd(t, "", "recover", "-dry-run", "-format", "json", "-compare", other, home)
	require.Equal(t, 0, got.code, got.stderr)
	var plan recoveryShown
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &plan))
	require.Equal(t, []string{"", "has the most"}, []string{plan.Survivors[0].Says, plan.Survivors[1].Says})
	require.Equal(t, id, plan.NodeID)
	require.Equal(t, inspectedCluster, plan.FormerID)
	require.False(t, plan.Recovered)
	require.Equal(t, 2, logd(t, id+"\n", "recover", "-format", "json", home).code, "who would answer?")
	got = logd(t, "no\n", "recover", "-compare", other, home)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stdout, "Another survivor has more")
	require.Contains(t, got.stderr, "nothing was changed")
	require.Equal(t, before, contents(t, home))

	got = logd(t, id+"\n", "recover", home)
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stdout, "has the most")
	require.Contains(t, got.stdout, "==> Recovered")
	require.Equal(t, 0, logd(t, "", "inspect", "verify", home).code)
	runNode(t, home, "", nil, func(r *replica.Replica) {
		require.NotEqual(t, inspectedCluster, r.View().ClusterID)
		require.Equal(t, uint64(30), r.Log().Visible())
	})
}
