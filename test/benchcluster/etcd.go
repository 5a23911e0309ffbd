package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/logd-io/logd/test/harness"
)

const etcdHost = 211 // the first of three

// etcd starts three members and connects to the one that leads. A record is a
// key of its own, as one who keeps a log in etcd would do it. It cannot be
// streamed to, and is not meant to be read like a log.
func (s *setup) etcd(ctx context.Context) (*contender, error) {
	url := func(i int, port string) string {
		return "http://" + net.JoinHostPort(s.cluster.Host(etcdHost+i), port)
	}
	var members []string
	for i := range 3 {
		members = append(members, fmt.Sprintf("etcd%d=%s", i, url(i, "2380")))
	}
	var servers []*harness.Process
	for i := range members {
		name := fmt.Sprintf("etcd%d", i)
		p := &harness.Process{
			Name: name, Path: filepath.Join(s.peers, "etcd"), Log: filepath.Join(s.dir, "log", name+".log"),
			Args: []string{
				"--name", name, "--data-dir", filepath.Join(s.dir, name), "--log-level", "warn",
				"--listen-client-urls", url(i, "2379"), "--advertise-client-urls", url(i, "2379"),
				"--listen-peer-urls", url(i, "2380"), "--initial-advertise-peer-urls", url(i, "2380"),
				"--initial-cluster", strings.Join(members, ","), "--initial-cluster-state", "new",
				"--quota-backend-bytes", fmt.Sprint(8 << 30), // all records of a run
			},
		}
		if err := s.start(p); err != nil {
			return nil, err
		}
		servers = append(servers, p)
	}
	leader, err := s.etcdLeader(ctx, len(servers), func(i int) string { return url(i, "2379") })
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	clients := make([]*clientv3.Client, s.conns)
	for i := range clients {
		if clients[i], err = s.etcdClient(leader); err != nil {
			return nil, err
		}
	}
	var keys atomic.Uint64
	return &contender{
		name:    etcd,
		servers: servers,
		written: func(ctx context.Context) (uint64, error) { // a write is a revision
			resp, err := clients[0].Get(ctx, "none")
			if err != nil {
				return 0, err
			}
			return uint64(resp.Header.GetRevision()), nil
		},
		write: func(ctx context.Context, client int, record []byte) error {
			var key [8]byte
			binary.BigEndian.PutUint64(key[:], keys.Add(1))
			_, err := clients[client%len(clients)].Put(ctx, string(key[:]), string(record))
			return err
		},
	}, nil
}

func (s *setup) etcdClient(endpoint string) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second,
		Logger: zap.NewNop(), // it tells of every try while the members start
	})
	if err == nil {
		s.closers = append(s.closers, c.Close)
	}
	return c, err
}

// etcdLeader waits until a member leads and tells its URL.
func (s *setup) etcdLeader(ctx context.Context, n int, url func(int) string) (leader string, err error) {
	clients := make([]*clientv3.Client, n)
	for i := range clients {
		if clients[i], err = s.etcdClient(url(i)); err != nil {
			return "", err
		}
	}
	err = harness.Until(ctx, func() error {
		for i, c := range clients {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			st, err := c.Status(ctx, url(i))
			cancel()
			if err != nil {
				return err
			}
			if st.Leader != 0 && st.Leader == st.Header.GetMemberId() {
				leader = url(i)
			}
		}
		if leader == "" {
			return errors.New("no member leads")
		}
		return nil
	})
	return leader, err
}
