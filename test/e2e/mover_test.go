package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/harness"
	"github.com/logd-io/logd/test/history"
)

// mover is a client with a session of its own that moves between proxies, taking its
// position along, and goes on with the other proxy when one is not there.
type mover struct {
	c       *crowd
	name    string
	clients []logv1.LogClient // one a proxy
	at      int               // the proxy it is with
	steps   []func(p int) error

	cluster  string
	position uint64 // the highest it was told
	requests int
}

// newMover makes a client of these proxies.
func (c *crowd) newMover(i int, proxies ...*harness.Proxy) *mover {
	m := &mover{c: c, name: fmt.Sprint("mover ", i)}
	m.steps = []func(p int) error{m.write, m.reread, m.beyond, m.ends, m.follow}
	for _, p := range proxies {
		who := history.Who{Name: m.name + " at " + p.Name, Session: m.name, Principal: app}
		// It is to meet a proxy that has just started.
		quick := grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, MaxDelay: 50 * time.Millisecond},
			MinConnectTimeout: 5 * time.Second,
		}
		m.clients = append(m.clients, logv1.NewLogClient(c.record.Conn(c.w.naiveTo(p, grpc.WithConnectParams(quick)), who)))
	}
	return m
}

// context carries the session and its position.
func (m *mover) context() context.Context {
	ctx := metadata.AppendToOutgoingContext(m.c.ctx, "logd-session", m.name)
	if m.cluster != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "logd-position", fmt.Sprintf("%s:%d", m.cluster, m.position))
	}
	return ctx
}

// learn takes the position out of an answer.
func (m *mover) learn(md metadata.MD) {
	for _, v := range md.Get("logd-position") {
		cluster, offset, _ := strings.Cut(v, ":")
		if n, err := strconv.ParseUint(offset, 10, 64); err == nil {
			m.cluster, m.position = cluster, max(m.position, n)
		}
	}
}

// move goes to another proxy.
func (m *mover) move() {
	m.at = (m.at + 1) % len(m.clients)
	m.c.moves.Add(1)
}

// do calls until a proxy answers: one that was killed or is not ready yet is left for
// the other. What the log itself answers is passed on.
func (m *mover) do(call func(ctx context.Context, client logv1.LogClient, header grpc.CallOption) error) error {
	for {
		var md metadata.MD
		err := call(m.context(), m.clients[m.at], grpc.Header(&md))
		if err == nil {
			m.learn(md)
			return nil
		}
		gone := status.Code(err) == codes.Unavailable && apierr.ReasonOf(err) == ""
		if m.c.ctx.Err() != nil || !gone {
			return err
		}
		m.move()
		rest(m.c.ctx, rand.N(100*time.Millisecond))
	}
}

// end is nil for the word that an offset is beyond the end.
func end(err error) error {
	if apierr.ReasonOf(err) == apierr.ReasonOutOfRange {
		return nil
	}
	return err
}

func (m *mover) run(p int) {
	for !m.c.stopped() {
		if rand.IntN(2) == 0 {
			m.move()
		}
		if err := m.steps[rand.IntN(len(m.steps))](p); err != nil {
			m.c.fail(fmt.Errorf("%s: %w", m.name, err))
			return
		}
		rest(m.c.ctx, rand.N(20*time.Millisecond))
	}
}

// write appends a record once, however often that takes, and now and then once more
// than it needs.
func (m *mover) write(p int) error {
	m.requests++
	req, id := numbered(p, m.requests), fmt.Sprint(m.name, " ", m.requests)
	once := func() error {
		return m.do(func(ctx context.Context, client logv1.LogClient, header grpc.CallOption) error {
			_, err := client.Produce(metadata.AppendToOutgoingContext(ctx, "logd-request-id", id), req, header)
			return err
		})
	}
	if err := once(); err != nil {
		return err
	}
	m.c.appended.Add(1)
	if rand.IntN(4) > 0 {
		return nil
	}
	m.move()
	return once()
}

// reread reads something that the session has seen to exist.
func (m *mover) reread(int) error {
	if m.position == 0 {
		return nil
	}
	req := &logv1.ConsumeRequest{Offset: m.position - 1 - rand.Uint64N(min(m.position, 20)), Linearizable: rand.IntN(4) == 0}
	return m.do(func(ctx context.Context, client logv1.LogClient, header grpc.CallOption) error {
		_, err := client.Consume(ctx, req, header)
		return err
	})
}

// beyond reads where the log ends as far as the session knows, or a little further.
func (m *mover) beyond(int) error {
	req := &logv1.ConsumeRequest{Offset: m.position + rand.Uint64N(10), Linearizable: rand.IntN(3) == 0}
	return end(m.do(func(ctx context.Context, client logv1.LogClient, header grpc.CallOption) error {
		_, err := client.Consume(ctx, req, header)
		return err
	}))
}

func (m *mover) ends(int) error {
	return m.do(func(ctx context.Context, client logv1.LogClient, header grpc.CallOption) error {
		_, err := client.GetOffsets(ctx, &logv1.GetOffsetsRequest{}, header)
		return err
	})
}

// follow takes a few records from a stream that begins at most at the position, and
// leaves it. Each of them is at once the session's position.
func (m *mover) follow(int) error {
	from := m.position - min(m.position, rand.Uint64N(5))
	for left := 1 + rand.IntN(20); left > 0 && m.c.ending.Err() == nil; {
		err := m.do(func(ctx context.Context, client logv1.LogClient, _ grpc.CallOption) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(m.c.ending, cancel)() // nobody may write any more
			s, err := client.ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: from})
			if err != nil {
				return err
			}
			for ; left > 0; left-- {
				resp, err := s.Recv()
				switch {
				case errors.Is(err, io.EOF):
					return fmt.Errorf("the stream ended at %d", from)
				case err != nil:
					return err
				}
				from = resp.GetRecord().GetOffset() + 1
				if m.cluster != "" {
					m.position = max(m.position, from)
				}
			}
			return nil
		})
		if status.Code(err) == codes.Canceled && m.c.ending.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
