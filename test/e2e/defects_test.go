package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/harness"
)

// The defects of the prior art, by the number they have in docs/defects.md. What
// can only be seen inside a package is tested there under the same kind of name.

func produce(ctx context.Context, conn grpc.ClientConnInterface, value string) (uint64, error) {
	resp, err := logv1.NewLogClient(conn).Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(value)}})
	return resp.GetOffset(), err
}

// Defect 1: an acknowledgement meant "in a buffer", and after kill -9 the next
// offset was wrong.
func TestDefect01KillLosesAcknowledgedRecords(t *testing.T) {
	t.Parallel()
	w := start(t)
	tr := w.load()
	tr.more(300)
	for _, n := range w.Nodes {
		require.NoError(t, n.Kill())
	}
	tr.halt()
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	before := tr.check()

	off, err := produce(w.ctx, w.naive(), string(harness.Value(1<<40, nil)))
	require.NoError(t, err)
	// Batches that the proxy had in flight at the kill may come between: it cannot
	// know their outcome, and sends them until it does.
	require.GreaterOrEqual(t, off, before.InLog, "the next offset after a crash")
	recs, err := w.ReadNode(w.ctx, w.follower(), off+1)
	require.NoError(t, err)
	require.Len(t, recs, int(off)+1, "no offset is left out")
	_, err = harness.Check(recs, tr.Offsets())
	require.NoError(t, err)
}

// Defect 2: a restart replayed Raft's log into a log that held it already.
func TestDefect02RestartDuplicatesRecords(t *testing.T) {
	t.Parallel()
	w := start(t)
	conn := w.naive()
	var next uint64
	for i := range uint64(50) {
		off, err := produce(w.ctx, conn, string(harness.Value(i, nil)))
		require.NoError(t, err)
		next = off + 1
	}
	require.Equal(t, uint64(50), next)
	for range 3 {
		for _, n := range w.Nodes {
			require.NoError(t, n.Kill())
		}
		require.NoError(t, w.Start())
		require.NoError(t, w.Ready(w.ctx))
		for _, n := range w.Nodes {
			st := w.stats(n)
			require.Equal(t, next, st.GetVisible(), n.Name)
			recs, err := w.ReadNode(w.ctx, n, next)
			require.NoError(t, err)
			v, err := harness.Check(recs, nil)
			require.NoError(t, err)
			require.Equal(t, harness.Verdict{InLog: 50}, v)
		}
	}
}

// Defect 4: a stream at the end of the log kept a core busy.
func TestDefect04IdleTailSpins(t *testing.T) {
	w := start(t)
	_, err := produce(w.ctx, w.naive(), "the only record")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	open := func(conn grpc.ClientConnInterface) {
		for range 20 {
			s, err := logv1.NewLogClient(conn).ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: 0})
			require.NoError(t, err)
			_, err = s.Recv()
			require.NoError(t, err)
		}
	}
	open(w.naive())
	for _, n := range w.Nodes {
		open(w.dial("client", n))
	}
	// Sixty tails that spin would take all the time there is. Idle ones take
	// next to none; the bound is generous, for race builds and busy machines.
	const window = 3 * time.Second
	before := w.cpu()
	timer := time.NewTimer(window)
	defer timer.Stop()
	<-timer.C
	require.Less(t, w.cpu()-before, 2*window/3, "processor time of all processes with 80 idle tails")
}

func (w *world) cpu() (sum time.Duration) {
	w.t.Helper()
	for _, n := range w.Nodes {
		d, err := n.CPU()
		require.NoError(w.t, err)
		sum += d
	}
	d, err := w.proxy.CPU()
	require.NoError(w.t, err)
	return sum + d
}

// Defect 5: any gossip member with an address became a voter.
func TestDefect05ProxyBecomesVoter(t *testing.T) {
	w := start(t)
	_, err := produce(w.ctx, w.naive(), "the proxy is in gossip")
	require.NoError(t, err)
	var want []string
	for _, n := range w.Nodes {
		want = append(want, w.stats(n).GetNodeId())
	}
	slices.Sort(want)
	require.Equal(t, want, w.peers())
}

// peers is the Raft configuration of the leader.
func (w *world) peers() (ids []string) {
	w.t.Helper()
	for _, p := range w.stats(w.leader()).GetPeers() {
		ids = append(ids, p.GetId())
	}
	slices.Sort(ids)
	return ids
}

// Defect 6: a failed member lost its vote at once, and an event about the node
// itself ended the loop that hears of the others.
func TestDefect06FailedMemberIsRemoved(t *testing.T) {
	w := start(t)
	before := w.peers()
	f := w.follower()
	id := w.stats(f).GetNodeId()
	w.seen(f, id, "alive")
	for range 2 { // the second time shows that events are still heard
		require.NoError(t, f.Kill())
		w.seen(f, id, "failed")
		require.Equal(t, before, w.peers())
		_, err := produce(w.ctx, w.naive(), "with two of three")
		require.NoError(t, err)
		require.NoError(t, f.Process.Start())
		w.seen(f, id, "alive")
		require.NoError(t, w.NodeReady(w.ctx, f))
	}
	require.Equal(t, before, w.peers())
}

// gossip is what a node's admin server says of the members: id → state.
func (w *world) gossip(n *harness.Node) (map[string]string, error) {
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://"+n.Admin+"/api/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var st struct{ Members []struct{ ID, Gossip string } }
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		return nil, err
	}
	states := make(map[string]string)
	for _, m := range st.Members {
		states[m.ID] = m.Gossip
	}
	return states, nil
}

// Defect 8: a read after a write needed sleep(3 s), since followers lag and
// nothing said so.
func TestDefect08ReadAfterWriteNeedsSleep(t *testing.T) {
	w := start(t)
	writer, reader := w.naive(), logv1.NewLogClient(w.naive())
	for i := range 300 {
		value := fmt.Sprintf("write %d", i)
		off, err := produce(w.ctx, writer, value)
		require.NoError(t, err)
		resp, err := reader.Consume(w.ctx, &logv1.ConsumeRequest{Offset: off})
		require.NoError(t, err, "read %d of what was just written", off)
		require.Equal(t, value, string(resp.GetRecord().GetValue()))
	}
}

// Defect 9: the port read a first byte with no deadline, and who sent none held
// a goroutine for ever.
func TestDefect09SilentConnectionIsHeldForEver(t *testing.T) {
	t.Parallel()
	w := start(t)
	n := w.leader()
	for name, first := range map[string]string{"says nothing": "", "half a handshake": "\x16\x03\x01\x02\x00\x01"} {
		t.Run(name, func(t *testing.T) {
			var d net.Dialer
			conn, err := d.DialContext(w.ctx, "tcp", n.RPC)
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Write([]byte(first))
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
			_, err = conn.Read(make([]byte, 1))
			require.Error(t, err)
			var timeout net.Error
			if errors.As(err, &timeout) {
				require.False(t, timeout.Timeout(), "the node never closed the connection")
			}
		})
	}
	_, err := produce(w.ctx, w.naive(), "meanwhile")
	require.NoError(t, err)
}

// Defect 9, too: no checksum on records. A flipped bit in a node's file is never
// served.
func TestDefect09FlippedBitIsServed(t *testing.T) {
	w := start(t)
	conn := w.naive()
	const marker = "a record that nobody may change"
	off, err := produce(w.ctx, conn, marker)
	require.NoError(t, err)
	for i := range 20 {
		_, err := produce(w.ctx, conn, fmt.Sprintf("record %d", i))
		require.NoError(t, err)
	}
	f := w.follower()
	w.until("the follower has it", func() error {
		st, err := w.Stats(w.ctx, f)
		if err != nil {
			return err
		}
		if st.GetVisible() <= off {
			return errors.New("not yet")
		}
		return nil
	})
	require.NoError(t, f.Kill())
	flipBit(t, f.DataDir, marker)
	require.NoError(t, f.Process.Start())

	// The node may refuse to start or refuse to serve; it may not answer with
	// something else than what was written.
	client := logv1.NewLogClient(w.dial("client", f))
	for range 50 {
		resp, err := client.Consume(w.ctx, &logv1.ConsumeRequest{Offset: off})
		if err == nil {
			require.Equal(t, marker, string(resp.GetRecord().GetValue()))
		}
		got, err := logv1.NewLogClient(conn).Consume(w.ctx, &logv1.ConsumeRequest{Offset: off})
		require.NoError(t, err, "the others still serve it")
		require.Equal(t, marker, string(got.GetRecord().GetValue()))
	}
}

// flipBit changes one bit of the bytes that hold marker, somewhere below dir.
func flipBit(t *testing.T, dir, marker string) {
	t.Helper()
	flipped := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".seg") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := bytes.Index(b, []byte(marker))
		if at < 0 {
			return nil
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		flipped++
		_, err = file.WriteAt([]byte{b[at] ^ 1}, int64(at))
		return errors.Join(err, file.Close())
	}))
	require.Equal(t, 1, flipped, "one segment holds the record")
}

// Defect 9, too: snapshots copied the whole log.
func TestDefect09CheckpointCopiesTheLog(t *testing.T) {
	t.Parallel()
	w := start(t)
	conn := w.naive()
	big := strings.Repeat("x", 512<<10)
	for range 160 { // 80 MiB, past the 64 MiB after which a checkpoint is due
		_, err := produce(w.ctx, conn, big)
		require.NoError(t, err)
	}
	for _, n := range w.Nodes {
		var checkpoints, segments int64
		w.until("a checkpoint on "+n.Name, func() error {
			checkpoints, segments = 0, 0
			err := filepath.WalkDir(n.DataDir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					if errors.Is(err, fs.ErrNotExist) {
						err = nil
					}
					return err
				}
				info, err := d.Info()
				if err != nil {
					if errors.Is(err, fs.ErrNotExist) {
						err = nil
					}
					return err
				}
				switch filepath.Ext(path) {
				case ".seg":
					segments += info.Size()
				case ".ckp":
					checkpoints += info.Size()
				}
				return nil
			})
			if err != nil {
				return err
			}
			if checkpoints == 0 {
				return errors.New("no checkpoint yet")
			}
			return nil
		})
		require.Greater(t, segments, int64(80<<20), n.Name)
		require.Less(t, checkpoints, int64(4<<20), n.Name)
	}
}

// Defect 10: a node that does not lead answered an untyped error, and a client
// could not find the leader.
func TestDefect10NotLeaderIsUntyped(t *testing.T) {
	w := start(t)
	w.underOneLeader(func(leader *harness.Node) error {
		_, err := produce(w.ctx, w.dial("client", w.follower()), "to the wrong node")
		return w.namesTheLeader(err, leader)
	})
}

// namesTheLeader tells what is missing when err is not the word of one that does not lead,
// with the name and address of the one that does.
func (w *world) namesTheLeader(err error, leader *harness.Node) error {
	info, _ := apierr.From(err)
	said := []string{string(info.Reason), info.Code.String(), info.Metadata["address"], info.Metadata["leader"]}
	want := []string{string(apierr.ReasonNotLeader), codes.FailedPrecondition.String(), leader.RPC, w.stats(leader).GetNodeId()}
	if !slices.Equal(said, want) {
		return fmt.Errorf("%q and not %q: %w", said, want, cmp.Or(err, errors.New("there is no error")))
	}
	return nil
}
