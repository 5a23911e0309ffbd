package agent

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/replica"
)

const (
	// silence is how long a peer may take for the next part of its entries.
	silence = 10 * time.Second
	// maxCheckpointBytes is more than any checkpoint has with its configuration.
	maxCheckpointBytes = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// source asks other nodes for what this one's replica lost. A node is believed
// when its certificate has the id's name, and it says that it is that id, of our
// cluster.
type source struct{ *Agent }

var _ replica.Source = source{}

func (s source) Known() []string { return s.book.ids() }

func (s source) Standing(ctx context.Context, id string) (st replica.Standing, err error) {
	err = s.ask(ctx, id, peerTimeout, func(_ context.Context, _ func(), _ nodev1.NodeClient, stats *nodev1.StatsResponse) error {
		st.Term = stats.GetTerm()
		st.Running = stats.GetState() != string(replica.StateIdle) && stats.GetState() != string(replica.StateShutdown)
		st.Leads = stats.GetState() == string(replica.StateLeader)
		for _, p := range stats.GetPeers() {
			if p.GetVoter() {
				st.Voters = append(st.Voters, p.GetId())
			}
		}
		return nil
	})
	return st, err
}

func (s source) Entries(ctx context.Context, id string, first, last uint64, take func(replica.Extract) error) error {
	return s.ask(ctx, id, silence, func(ctx context.Context, moved func(), c nodev1.NodeClient, _ *nodev1.StatsResponse) error {
		stream, err := c.FetchEntries(ctx, &nodev1.FetchEntriesRequest{First: first, Last: last})
		if err != nil {
			return err
		}
		for next := first; ; {
			resp, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			moved()
			x := replica.Extract{Commit: resp.GetCommitIndex(), First: resp.GetFirstIndex(), Last: resp.GetLastIndex()}
			for _, e := range resp.GetEntries() {
				if e.GetIndex() != next || next > last || crc32.Checksum(e.GetData(), castagnoli) != e.GetPayloadCrc() {
					return fmt.Errorf("%s sent entry %d, term %d where %d was to come, or with a wrong checksum", id, e.GetIndex(), e.GetTerm(), next)
				}
				x.Entries = append(x.Entries, commitlog.Entry{
					Index: e.GetIndex(), Term: e.GetTerm(), Type: uint8(e.GetType()), AppendedAt: e.GetAppendedAt(), Data: e.GetData(),
				})
				next++
			}
			if err := take(x); err != nil {
				return err
			}
		}
	})
}

func (s source) Checkpoint(ctx context.Context, id string, max uint64) (ckpt replica.Checkpoint, err error) {
	err = s.ask(ctx, id, silence, func(ctx context.Context, _ func(), c nodev1.NodeClient, _ *nodev1.StatsResponse) error {
		resp, err := c.FetchCheckpoint(ctx, &nodev1.FetchCheckpointRequest{MaxIndex: max}, grpc.MaxCallRecvMsgSize(maxCheckpointBytes))
		ckpt = replica.Checkpoint{
			Index: resp.GetIndex(), Term: resp.GetTerm(), Next: resp.GetNextOffset(), Bytes: resp.GetLogBytes(),
			Config: resp.GetConfiguration(), ConfigIndex: resp.GetConfigurationIndex(), State: resp.GetState(),
		}
		return err
	})
	return ckpt, err
}

// ask connects to a node, makes sure that it is that one, and gives f its first
// answer. What takes longer than patience without a call of moved is cut off.
func (s source) ask(ctx context.Context, id string, patience time.Duration,
	f func(ctx context.Context, moved func(), c nodev1.NodeClient, stats *nodev1.StatsResponse) error) error {
	addr := s.address(id)
	if addr == "" {
		return fmt.Errorf("no address of %s is known", id)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(patience, func() { cancel(fmt.Errorf("%s has said nothing for %v", id, patience)) })
	defer late.Stop()
	moved := func() { late.Reset(patience) }
	conn, err := s.connect(addr, replica.NameOf(id))
	if err != nil {
		return err
	}
	err = func(c nodev1.NodeClient) error {
		stats, err := c.Stats(ctx, &nodev1.StatsRequest{})
		if err != nil {
			return err
		}
		moved()
		if cluster := s.replica.View().ClusterID; stats.GetNodeId() != id || stats.GetClusterId() != cluster {
			return fmt.Errorf("the node at %s is %s of cluster %q, not %s of %q", addr, stats.GetNodeId(), stats.GetClusterId(), id, cluster)
		}
		return f(ctx, moved, c, stats)
	}(nodev1.NewNodeClient(conn))
	err = errors.Join(err, conn.Close())
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// ids lists the nodes that have an address.
func (b *addressBook) ids() (ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
