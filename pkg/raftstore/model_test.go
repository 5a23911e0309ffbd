package raftstore_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// model is what a store has to hold.
type model struct {
	start, startTerm uint64
	last             uint64
	entries          map[uint64]*raft.Log
	checks           map[uint64]string // by index: the state in it
	newest           uint64            // index of the newest checkpoint
	commit           uint64
	term             uint64 // of what is stored next
	current          uint64 // Raft's
}

// drive makes the calls that a script encodes, on a store and on a map, crashes
// it now and then, and holds the one against the other.
func drive(t *testing.T, script []byte) {
	fs := memfs.New()
	s := open(t, fs, nil)
	m := &model{entries: map[uint64]*raft.Log{}, checks: map[uint64]string{}, term: 1}
	for i := 0; i+1 < len(script); i += 2 {
		arg := uint64(script[i+1])
		switch script[i] % 9 {
		case 0, 1:
			var es []*raft.Log
			for k := range arg%6 + 1 {
				es = append(es, &raft.Log{Index: m.last + 1 + k, Term: m.term, Type: raft.LogCommand, Data: make([]byte, arg*5+k)})
			}
			require.NoError(t, s.StoreLogs(es))
			for _, e := range es {
				m.entries[e.Index], m.last = e, e.Index
			}
		case 2:
			// Raft cuts what conflicts, never what is committed.
			m.term++
			from := max(m.commit, m.start) + 1 + arg%8
			if from <= m.last {
				require.NoError(t, s.DeleteRange(from, m.last))
				m.last = from - 1
			}
		case 3:
			from := m.commit
			m.commit = max(m.commit, min(m.last, m.commit+arg%9))
			m.publish(t, s, from)
		case 4:
			if m.commit > max(m.newest, m.start) {
				sink, err := s.Snapshots().Create(1, m.commit, m.termOf(m.commit), config("a"), 1, nil)
				require.NoError(t, err)
				sink.(*raftstore.Sink).Cover(m.commit*2, m.commit*100)
				state := fmt.Sprintf("state %d at %d", i, m.commit)
				_, err = io.WriteString(sink, state)
				require.NoError(t, err)
				require.NoError(t, s.Log().SyncOffsets())
				require.NoError(t, sink.Close())
				m.checks[m.commit], m.newest = state, m.commit
			}
		case 5:
			moved, err := s.Retain(arg * 2)
			require.NoError(t, err)
			if moved {
				at := s.Log().Start()
				require.Equal(t, at.Index*2, at.Offset)
				require.LessOrEqual(t, at.Offset, arg*2)
				require.Contains(t, m.checks, at.Index)
				m.start, m.startTerm = at.Index, m.termOf(at.Index)
			}
		case 6:
			if arg < 40 {
				m.term++
				at := m.last + 1 + arg
				state := fmt.Sprintf("installed %d", i)
				require.NoError(t, s.Install(raftstore.Installed{Index: at, Term: m.term, Next: at * 2, Bytes: at * 100, Config: config("a"), ConfigIndex: 1, State: []byte(state)}))
				m.start, m.startTerm, m.last, m.commit, m.newest = at, m.term, at, at, at
				m.checks = map[uint64]string{at: state}
			}
		case 7:
			m.current += arg
			require.NoError(t, s.SetUint64([]byte("CurrentTerm"), m.current))
		case 8:
			// Everything was durable when its call returned.
			if arg%2 == 0 {
				fs = fs.Crash(arg)
			} else {
				fs = fs.Kill()
			}
			require.NoError(t, s.Close())
			s = open(t, fs, nil)
			// What a restart does: back to the newest checkpoint, and on from there.
			from := max(m.newest, m.start)
			require.NoError(t, s.Log().Rewind(from*2))
			m.publish(t, s, from)
		}
		m.check(t, s)
	}
	require.NoError(t, s.Close())
}

// publish applies the entries behind from that are committed: two records each.
func (m *model) publish(t *testing.T, s *raftstore.Store, from uint64) {
	t.Helper()
	var applied []commitlog.Applied
	for i := from + 1; i <= m.commit; i++ {
		applied = append(applied, commitlog.Applied{FirstOffset: (i - 1) * 2, Count: 2, Index: i, Len: uint32(len(m.entries[i].Data))})
	}
	require.NoError(t, s.Log().Publish(applied))
	require.Equal(t, m.commit*2, s.Log().Visible())
}

func (m *model) termOf(index uint64) uint64 {
	if index == m.start {
		return m.startTerm
	}
	return m.entries[index].Term
}

func (m *model) check(t *testing.T, s *raftstore.Store) {
	t.Helper()
	last, err := s.LastIndex()
	require.NoError(t, err)
	require.Equal(t, m.last, last)
	first, err := s.FirstIndex()
	require.NoError(t, err)
	if m.last > m.start {
		require.Equal(t, m.start+1, first)
	} else {
		require.Zero(t, first)
	}
	var l raft.Log
	for i := m.start + 1; i <= m.last; i++ {
		require.NoError(t, s.GetLog(i, &l))
		require.Equal(t, *m.entries[i], l)
	}
	require.Equal(t, raft.ErrLogNotFound, s.GetLog(m.last+1, &l))
	if m.start > 0 {
		require.NoError(t, s.GetLog(m.start, &l))
		require.Equal(t, raft.Log{Index: m.start, Term: m.startTerm, Type: raft.LogNoop}, l)
		require.Equal(t, raft.ErrLogNotFound, s.GetLog(m.start-1, &l))
	}
	term, err := s.GetUint64([]byte("CurrentTerm"))
	if m.current > 0 {
		require.NoError(t, err)
		require.Equal(t, m.current, term)
	}
	metas, err := s.Snapshots().List()
	require.NoError(t, err)
	if m.newest >= m.start && m.newest > 0 {
		require.NotEmpty(t, metas)
		require.Equal(t, m.newest, metas[0].Index, "the newest first")
	}
	for _, meta := range metas {
		_, r, err := s.Snapshots().Open(meta.ID)
		require.NoError(t, err)
		state, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, m.checks[meta.Index], string(state))
		require.GreaterOrEqual(t, meta.Index, m.start)
	}
}

func TestStoreAgainstAMap(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 5))
		script := make([]byte, 100)
		for i := range script {
			script[i] = byte(rng.Uint32())
		}
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { drive(t, script) })
	}
}

func FuzzStoreAgainstAMap(f *testing.F) {
	f.Add([]byte{0, 5, 3, 4, 4, 0, 5, 2, 8, 0, 2, 1, 0, 3, 6, 7, 8, 1})
	f.Fuzz(func(t *testing.T, script []byte) { drive(t, script[:min(len(script), 120)]) })
}
