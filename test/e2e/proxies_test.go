package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/harness"
	"github.com/logd-io/logd/test/history"
)

// deafConn is a client's connection on which, from some moment on, nothing comes
// back: what its proxy answers is lost.
type deafConn struct {
	net.Conn
	deaf   *atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.deaf.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// hardOfHearing is a naive client whose connection goes deaf when the test says.
func (w *world) hardOfHearing(addr string) (*grpc.ClientConn, *atomic.Bool) {
	deaf := new(atomic.Bool)
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			return &deafConn{Conn: c, deaf: deaf, closed: make(chan struct{})}, nil
		}))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn, deaf
}

// Clients of several proxies of one principal, and of one more of another.
func TestSeveralProxies(t *testing.T) {
	t.Parallel()
	w := prepare(t, nil)
	r := history.NewRecorder()
	var proxies [3]*harness.Proxy
	var clients [3]logv1.LogClient
	for i, principal := range []string{"app", "app", "other"} {
		p, err := w.AddProxy(fmt.Sprintf("principal = %q\n", principal))
		require.NoError(t, err)
		proxies[i], clients[i] = p, logv1.NewLogClient(w.recorded(r, fmt.Sprint("client ", i), p, principal))
	}
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	rec := func(value string) *logv1.ProduceRequest {
		return &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(value)}}
	}
	put := func(c logv1.LogClient, id, value string) uint64 {
		t.Helper()
		ctx := w.ctx
		if id != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "logd-request-id", id)
		}
		resp, err := c.Produce(ctx, rec(value), grpc.WaitForReady(true))
		require.NoError(t, err)
		return resp.GetOffset()
	}

	// P3: the proxy is killed after the append was committed, and its client has not
	// heard. The client repeats itself through another proxy, and the record is in the
	// log once.
	for round := range 4 {
		conn, deaf := w.hardOfHearing(proxies[0].Addr)
		lost := logv1.NewLogClient(r.Conn(conn, history.Who{Name: fmt.Sprint("unlucky ", round), Session: proxies[0].Name, Principal: "app"}))
		at := put(lost, "", "before") + 1
		id, value := fmt.Sprint("id ", round), fmt.Sprint("value ", round)
		deaf.Store(true)
		ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(w.ctx, "logd-request-id", id))
		heard := make(chan error, 1)
		go func() {
			_, err := lost.Produce(ctx, rec(value))
			heard <- err
		}()
		w.until("the record is committed", func() error {
			if st, err := w.Stats(w.ctx, w.leader()); err != nil || st.GetVisible() > at {
				return err
			}
			return errors.New("it is not")
		})
		require.NoError(t, proxies[0].Kill())
		cancel()
		require.Error(t, <-heard, "its answer was lost")
		for range 2 {
			require.Equal(t, at, put(clients[1], id, value))
		}
		require.Equal(t, at+1, put(clients[2], id, value), "another principal's id is another id")
		require.Equal(t, at+2, put(clients[1], id+"'", value))
		resp, err := clients[1].Consume(w.ctx, &logv1.ConsumeRequest{Offset: at, Linearizable: true})
		require.NoError(t, err)
		require.Equal(t, value, string(resp.GetRecord().GetValue()))
		require.NoError(t, proxies[0].Start())
		require.NoError(t, w.ProxyReady(w.ctx, proxies[0]))
		require.Equal(t, at, put(clients[0], id, value), "and the proxy that was killed knows it, too")
	}

	// A linearizable read through one proxy sees what was acknowledged through another,
	// wherever it goes, without a session or position in common.
	for i := range 60 {
		off := put(clients[i%2], "", "x")
		resp, err := clients[2].Consume(w.ctx, &logv1.ConsumeRequest{Offset: off, Linearizable: true})
		require.NoError(t, err)
		require.Equal(t, off, resp.GetRecord().GetOffset())
		_, err = clients[2].Consume(w.ctx, &logv1.ConsumeRequest{Offset: off + 1, Linearizable: true})
		require.Equal(t, apierr.ReasonOutOfRange, apierr.ReasonOf(err), "%v", err)
	}
	_, report := w.verify(r, 0, put(clients[0], "", "last")+1)
	require.Equal(t, 4, report.Unknown, "only the unlucky did not hear")
}
