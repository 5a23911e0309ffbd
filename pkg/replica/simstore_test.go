package replica

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

// probe connects a life of a node with the oracle.
func (h *simHost) probe(n *simNode) *probe {
	o := h.w.o
	return &probe{
		bugs:          h.w.opt.bugs,
		commitTimeout: h.w.commit,
		stores: func(s *raftstore.Store) (raft.LogStore, raft.StableStore) {
			p := &simStore{Store: s, n: n, o: o}
			if n.alive.Load() {
				o.opened(n.id, s.Log(), p.get)
			}
			return p, p
		},
		snapshots: func(s *raftstore.Snapshots) raft.SnapshotStore {
			if h.oldConfig {
				return oldConfigs{s}
			}
			return s
		},
		started: func(r *raft.Raft) { o.configured(n, r) },
		state:   func(r *raft.Raft, s raft.RaftState) { o.became(n, s, r.CurrentTerm()) },
		sends:   func(req *raft.AppendEntriesRequest) { o.sends(n, req) },
		made: func(m *machine, visible uint64) {
			m.producers.max, m.keys.max = o.model.maxProd, o.model.maxKeys
			o.made(n, m, visible)
		},
		applied: func(l *raft.Log, m *machine, outcomes []outcome, pub []commitlog.Applied) {
			o.applies(n, l, m, outcomes, pub)
		},
	}
}

// configured compares the configuration Raft starts with and the newest one in
// the log or, with none there, committed below it.
func (o *oracle) configured(n *simNode, r *raft.Raft) {
	f := r.GetConfiguration()
	if f.Error() != nil {
		return
	}
	got := f.Configuration()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !n.alive.Load() {
		return
	}
	s := o.shadow(n.id)
	var at place
	want, ok := "", false
	for i := s.last().index; i > s.start.index && !ok; i-- {
		at, _ = s.at(i)
		want, ok = o.configs[at]
	}
	for i := min(s.start.index, uint64(len(o.chosen)-1)); i > 0 && !ok; i-- {
		at = place{i, o.chosen[i]}
		want, ok = o.configs[at]
	}
	if servers := fmt.Sprint(got.Servers); ok && servers != want {
		o.violated("configuration", "%s starts with %s, but entry %d, the newest it has, says %s", n.id, servers, at.index, want)
	}
}

// simStore is what Raft stores through.
type simStore struct {
	*raftstore.Store
	n *simNode
	o *oracle
}

func (s *simStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *simStore) StoreLogs(logs []*raft.Log) error {
	s.n.disk.wait()
	s.o.storing(s.n, logs)
	err := s.Store.StoreLogs(logs)
	if err == nil {
		s.o.storedAll(s.n)
		if s.n.host.shows {
			s.show(logs)
		}
		s.n.disk.wait()
	}
	return err
}

// show is a planted bug: records can be read when they are stored.
func (s *simStore) show(logs []*raft.Log) {
	for _, l := range logs {
		if l.Type != raft.LogCommand || l.Data[0] != kindData {
			continue
		}
		next := s.Log().Visible()
		_ = decodeData(l.Data, func(h *header) {
			_ = s.Log().Publish([]commitlog.Applied{{FirstOffset: next, Count: h.count, Index: l.Index, Pos: h.pos, Len: h.len}})
			next += uint64(h.count)
		})
	}
}

func (s *simStore) DeleteRange(first, last uint64) error {
	s.n.disk.wait()
	s.o.cutting(s.n, first)
	err := s.Store.DeleteRange(first, last)
	if err == nil {
		s.o.cut(s.n, first)
	}
	return err
}

func (s *simStore) get(key string) string {
	if s.Log() == nil {
		return ""
	}
	b, err := s.Store.Get([]byte(key))
	if err != nil {
		return ""
	}
	return string(b)
}

func (s *simStore) Set(key, val []byte) error {
	s.n.disk.wait()
	s.o.setting(s.n, string(key), string(val))
	vote := string(key) != "CurrentTerm"
	if h := s.n.host; !(h.forgetVote && vote || h.oldTerm && !vote) {
		if err := s.Store.Set(key, val); err != nil {
			return err
		}
	}
	s.o.set(s.n, string(key), string(val))
	return nil
}

func (s *simStore) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// oldConfigs is a planted bug: a checkpoint loses the newest member.
type oldConfigs struct{ *raftstore.Snapshots }

func (s oldConfigs) List() ([]*raft.SnapshotMeta, error) {
	metas, err := s.Snapshots.List()
	for _, m := range metas {
		if n := len(m.Configuration.Servers); n > 1 {
			m.Configuration.Servers = m.Configuration.Servers[:n-1]
		}
	}
	return metas, err
}
