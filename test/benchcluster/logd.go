package main

import (
	"context"

	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// logd gives the two ways to logd: straight to its nodes with mutual TLS, writes
// to the leader and reads from a follower, and naively through a proxy.
func (s *setup) logd(proxy *harness.Proxy, leader *harness.Node) ([]*contender, error) {
	var servers []*harness.Process
	var follower *harness.Node
	for _, n := range s.cluster.Nodes {
		servers = append(servers, n.Process)
		if n != leader {
			follower = n
		}
	}
	straight := func(n *harness.Node) func() (*grpc.ClientConn, error) {
		return func() (*grpc.ClientConn, error) { return s.cluster.Dial("client", n) }
	}
	naive := func() (*grpc.ClientConn, error) { return harness.Naive(proxy.Addr) }
	d, err := s.logdBy(direct, servers, straight(leader), straight(follower))
	if err != nil {
		return nil, err
	}
	p, err := s.logdBy(proxied, append(servers[:len(servers):len(servers)], proxy.Process), naive, naive)
	// The proxy's followers are not asked how far the log goes: the leader is.
	p.written = d.written
	return []*contender{p, d}, err
}

func (s *setup) logdBy(name string, servers []*harness.Process, dialWriter, dialReader func() (*grpc.ClientConn, error)) (*contender, error) {
	dial := func(dial func() (*grpc.ClientConn, error)) (*grpc.ClientConn, error) {
		conn, err := dial()
		if err == nil {
			s.closers = append(s.closers, conn.Close)
		}
		return conn, err
	}
	writers := make([]*grpc.ClientConn, s.conns)
	clients := make([]logv1.LogClient, s.conns)
	for i := range writers {
		var err error
		if writers[i], err = dial(dialWriter); err != nil {
			return nil, err
		}
		clients[i] = logv1.NewLogClient(writers[i])
	}
	reader, err := dial(dialReader)
	if err != nil {
		return nil, err
	}
	return &contender{
		name:    name,
		servers: servers,
		written: func(ctx context.Context) (uint64, error) {
			resp, err := clients[0].GetOffsets(ctx, &logv1.GetOffsetsRequest{})
			return resp.GetNext(), err
		},
		write: func(ctx context.Context, client int, record []byte) error {
			_, err := clients[client%len(clients)].Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: record}})
			return err
		},
		stream: func(ctx context.Context, size int, more func(int) bool) (int, error) {
			return harness.Produce(ctx, writers[0], size, more)
		},
		read: func(ctx context.Context, from uint64, n int) error {
			next := from + uint64(n)
			return harness.Tail(ctx, reader, from, func(rec *logv1.Record) bool { return rec.GetOffset()+1 < next })
		},
	}, nil
}
