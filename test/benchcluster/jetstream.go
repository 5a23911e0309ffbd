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
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/logd-io/logd/test/harness"
)

const (
	natsHost = 201 // the first of three
	subject  = "bench"
	inFlight = 1024
)

// jetStream starts three servers that sync every write before they acknowledge
// it, makes a stream on all three, and connects to the one that leads it.
func (s *setup) jetStream(ctx context.Context) (*contender, error) {
	host := func(i int) string { return s.cluster.Host(natsHost + i) }
	urls, routes := make([]string, 3), make([]string, 3)
	for i := range urls {
		urls[i] = "nats://" + net.JoinHostPort(host(i), "4222")
		routes[i] = "nats-route://" + net.JoinHostPort(host(i), "6222")
	}
	var servers []*harness.Process
	for i := range urls {
		name := fmt.Sprintf("nats%d", i)
		dir := filepath.Join(s.dir, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
		conf := fmt.Sprintf(`server_name: %s
listen: "%s:4222"
http: "%s:8222"
jetstream {
  store_dir: %q
  sync_interval: always
}
cluster {
  name: bench
  listen: "%s:6222"
  routes: [%s]
}
`, name, host(i), host(i), dir, host(i), strings.Join(routes, ", "))
		file := filepath.Join(dir, "nats.conf")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			return nil, err
		}
		p := &harness.Process{
			Name: name, Path: filepath.Join(s.peers, "nats-server"), Args: []string{"-c", file}, Log: filepath.Join(s.dir, "log", name+".log"),
		}
		if err := s.start(p); err != nil {
			return nil, err
		}
		servers = append(servers, p)
	}
	stream, err := s.createStream(ctx, urls)
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w; the end of a server's log:\n%s", err, servers[0].Tail(20))
	}
	var leader string
	err = harness.Until(ctx, func() error {
		info, err := stream.Info(ctx)
		if err != nil {
			return err
		}
		if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != 2 {
			return errors.New("the stream has no leader with two followers")
		}
		for i, p := range servers {
			if p.Name == info.Cluster.Leader {
				leader = urls[i]
				return syncsAlways(ctx, host(i))
			}
		}
		return fmt.Errorf("an unknown server %s leads", info.Cluster.Leader)
	})
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	return s.jetStreamAt(ctx, leader, servers)
}

func (s *setup) createStream(ctx context.Context, urls []string) (jetstream.Stream, error) {
	var nc *nats.Conn
	err := harness.Until(ctx, func() (err error) {
		nc, err = nats.Connect(strings.Join(urls, ","))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect to nats: %w", err)
	}
	s.closers = append(s.closers, func() error { nc.Close(); return nil })
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	var stream jetstream.Stream
	err = harness.Until(ctx, func() (err error) {
		// A server that knows no leader yet does not answer at all.
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		stream, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: subject, Subjects: []string{subject}, Replicas: 3, Storage: jetstream.FileStorage,
		})
		return err
	})
	if err != nil {
		err = fmt.Errorf("create a stream: %w", err)
	}
	return stream, err
}

// syncsAlways makes sure that the server took that setting.
func syncsAlways(ctx context.Context, host string) error {
	text, err := harness.Get(ctx, "http://"+net.JoinHostPort(host, "8222")+"/varz")
	if err != nil {
		return err
	}
	var varz struct {
		JetStream struct {
			Config struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.Unmarshal([]byte(text), &varz); err != nil {
		return err
	}
	if !varz.JetStream.Config.SyncAlways {
		return harness.Ended(errors.New("the server does not sync always"))
	}
	return nil
}

// jetStreamAt connects clients to the server that leads the stream.
func (s *setup) jetStreamAt(ctx context.Context, url string, servers []*harness.Process) (*contender, error) {
	var failed atomic.Int64 // of what was published without waiting
	clients := make([]jetstream.JetStream, s.conns)
	for i := range clients {
		nc, err := nats.Connect(url, nats.IgnoreDiscoveredServers())
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, func() error { nc.Close(); return nil })
		clients[i], err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(inFlight),
			jetstream.WithPublishAsyncErrHandler(func(jetstream.JetStream, *nats.Msg, error) { failed.Add(1) }))
		if err != nil {
			return nil, err
		}
	}
	stream, err := clients[0].Stream(ctx, subject)
	if err != nil {
		return nil, err
	}
	return &contender{
		name:    jetStream,
		servers: servers,
		written: func(ctx context.Context) (uint64, error) {
			info, err := stream.Info(ctx)
			if err != nil {
				return 0, err
			}
			return info.State.LastSeq, nil
		},
		write: func(ctx context.Context, client int, record []byte) error {
			_, err := clients[client%len(clients)].Publish(ctx, subject, record)
			return err
		},
		stream: func(ctx context.Context, size int, more func(int) bool) (int, error) {
			record := make([]byte, size)
			sent := 0
			for ; more(sent); sent++ {
				if _, err := clients[0].PublishAsync(subject, record, jetstream.WithStallWait(10*time.Second)); err != nil {
					return 0, err
				}
			}
			select {
			case <-clients[0].PublishAsyncComplete():
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
			if n := failed.Load(); n > 0 {
				return 0, fmt.Errorf("%d records were not acknowledged", n)
			}
			return sent, nil
		},
		read: func(ctx context.Context, from uint64, n int) error { return readOrdered(ctx, clients[0], from, n) },
	}, nil
}

// readOrdered reads n messages with an ordered consumer, which repairs gaps by
// itself.
func readOrdered(ctx context.Context, js jetstream.JetStream, from uint64, n int) error {
	consumer, err := js.OrderedConsumer(ctx, subject, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from + 1, // the first one is number 1
	})
	if err != nil {
		return err
	}
	got := 0
	done := make(chan error, 1) // what the last message says
	reading, err := consumer.Consume(func(msg jetstream.Msg) {
		if got++; got != n {
			return
		}
		meta, err := msg.Metadata()
		if err == nil && meta.Sequence.Stream != from+uint64(n) {
			err = fmt.Errorf("message %d after %d messages from %d on", meta.Sequence.Stream, n, from+1)
		}
		done <- err
	}, jetstream.PullMaxMessages(pulled))
	if err != nil {
		return err
	}
	defer reading.Stop()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pulled is how many messages the consumer asks for at a time.
const pulled = 5000
