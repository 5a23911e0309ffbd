package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/client"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

// service is a log in memory that can break its produce stream.
type service struct {
	logv1.UnimplementedLogServer
	records   []*logv1.Record // written by the one stream of a test, before anything reads
	failAfter int             // records after which the produce stream fails; 0: never
	swallow   bool            // acknowledge nothing
}

func (s *service) Produce(_ context.Context, req *logv1.ProduceRequest) (*logv1.ProduceResponse, error) {
	s.records = append(s.records, req.GetRecord())
	return &logv1.ProduceResponse{Offset: uint64(len(s.records) - 1)}, nil
}

func (s *service) ProduceStream(stream logv1.Log_ProduceStreamServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if s.failAfter > 0 && len(s.records) == s.failAfter {
			return status.Error(codes.ResourceExhausted, "full")
		}
		s.records = append(s.records, req.GetRecord())
		if s.swallow {
			continue
		}
		if err := stream.Send(&logv1.ProduceResponse{Offset: uint64(len(s.records) - 1)}); err != nil {
			return err
		}
	}
}

func (s *service) ConsumeStream(req *logv1.ConsumeRequest, stream logv1.Log_ConsumeStreamServer) error {
	for i := req.GetOffset(); i < uint64(len(s.records)); i++ {
		r := &logv1.Record{Value: s.records[i].GetValue(), Offset: i}
		if err := stream.Send(&logv1.ConsumeResponse{Record: r}); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func (s *service) GetOffsets(_ context.Context, req *logv1.GetOffsetsRequest) (*logv1.GetOffsetsResponse, error) {
	res := &logv1.GetOffsetsResponse{Lowest: 3, Next: uint64(len(s.records))}
	if req.Time != nil {
		at := uint64(req.GetTime())
		res.AtTime = &at
	}
	return res, nil
}

func (s *service) GetServers(context.Context, *logv1.GetServersRequest) (*logv1.GetServersResponse, error) {
	return &logv1.GetServersResponse{Servers: []*logv1.Server{{Id: "n1", IsLeader: true}}}, nil
}

func serve(t *testing.T, s *service, lis net.Listener, opts ...grpc.ServerOption) {
	t.Helper()
	srv := grpc.NewServer(opts...)
	logv1.RegisterLogServer(srv, s)
	done := make(chan error, 1) // 1: Serve's result
	go func() { done <- srv.Serve(lis) }()
	t.Cleanup(func() {
		srv.Stop()
		require.NoError(t, <-done)
	})
}

func dial(t *testing.T, s *service) *client.Client {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serve(t, s, lis)
	c, err := client.Dial(lis.Addr().String(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func record(i int) *logv1.Record { return &logv1.Record{Value: []byte(strconv.Itoa(i))} }

func TestProducerCountsAndKeepsOrder(t *testing.T) {
	s := &service{}
	c := dial(t, s)
	ctx := testutil.Context(t, time.Minute)
	p, err := c.Producer(ctx, 4)
	require.NoError(t, err)
	const n = 1000
	for i := range n {
		require.NoError(t, p.Send(ctx, record(i)))
	}
	require.NoError(t, p.Close(ctx))
	require.Equal(t, client.Acked{Sent: n, Acked: n, First: 0, Last: n - 1}, p.Progress())
	require.NoError(t, p.Close(ctx), "a second time")
	require.Error(t, p.Send(ctx, record(0)))

	var got []string
	require.NoError(t, c.ConsumeRange(ctx, 10, n, func(r *logv1.Record) error {
		got = append(got, string(r.GetValue()))
		return nil
	}))
	require.Len(t, got, n-10)
	require.Equal(t, "10", got[0])
	require.Equal(t, "999", got[len(got)-1])
}

func TestProducerSaysHowFarItGot(t *testing.T) {
	c := dial(t, &service{failAfter: 7})
	ctx := testutil.Context(t, time.Minute)
	p, err := c.Producer(ctx, 2)
	require.NoError(t, err)
	for i := 0; err == nil; i++ {
		err = p.Send(ctx, record(i))
	}
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Equal(t, codes.ResourceExhausted, status.Code(p.Close(ctx)))
	require.EqualValues(t, 7, p.Progress().Acked)
	require.EqualValues(t, 6, p.Progress().Last)
}

func TestUnansweredRecordsAreAnError(t *testing.T) {
	c := dial(t, &service{swallow: true})
	ctx := testutil.Context(t, time.Minute)
	p, err := c.Producer(ctx, 0)
	require.NoError(t, err)
	require.NoError(t, p.Send(ctx, record(1)))
	require.ErrorContains(t, p.Close(ctx), "1 records unanswered")
	require.Zero(t, p.Progress().Acked)
}

func TestSendWaitsForTheWindowAndTheContext(t *testing.T) {
	c := dial(t, &service{swallow: true})
	ctx := testutil.Context(t, time.Minute)
	p, err := c.Producer(ctx, 1)
	require.NoError(t, err)
	require.NoError(t, p.Send(ctx, record(1)))
	stop, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, p.Send(stop, record(2)), context.Canceled)
	require.EqualValues(t, 1, p.Progress().Sent)
	require.ErrorIs(t, p.Close(stop), context.Canceled)
}

func TestConsumeEndsWithItsFunction(t *testing.T) {
	s := &service{records: []*logv1.Record{record(0), record(1)}}
	c := dial(t, s)
	enough := errors.New("enough")
	require.ErrorIs(t, c.Consume(testutil.Context(t, time.Minute), 0, func(*logv1.Record) error { return enough }), enough)
}

func TestUnaryCalls(t *testing.T) {
	s := &service{}
	c := dial(t, s)
	ctx := testutil.Context(t, time.Minute)
	off, err := c.Produce(ctx, record(0))
	require.NoError(t, err)
	require.Zero(t, off)
	o, err := c.Offsets(ctx)
	require.NoError(t, err)
	require.Equal(t, client.Offsets{Lowest: 3, Next: 1}, o)
	at, err := c.OffsetAt(ctx, time.Unix(0, 42))
	require.NoError(t, err)
	require.EqualValues(t, 42, at)
	servers, err := c.Servers(ctx)
	require.NoError(t, err)
	require.Len(t, servers, 1)
}

func TestMutualTLSAndUnixSocket(t *testing.T) {
	ca := tlstest.NewCA(t, "test")
	t.Run("mTLS", func(t *testing.T) {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		server := ca.Source(t, tlsconf.RoleProxy, "p1").Server([]string{tlsconf.ALPNgRPC}, tlsconf.RoleClient)
		serve(t, &service{}, lis, grpc.Creds(credentials.NewTLS(server)))
		c, err := client.Dial(lis.Addr().String(), ca.Source(t, tlsconf.RoleClient, "me").Client(tlsconf.ALPNgRPC, "", ""))
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Offsets(testutil.Context(t, time.Minute))
		require.NoError(t, err)
	})
	t.Run("unix socket", func(t *testing.T) {
		path := t.TempDir() + "/log.sock"
		lis, err := net.Listen("unix", path)
		require.NoError(t, err)
		serve(t, &service{}, lis)
		for _, address := range []string{path, "unix://" + path} {
			c, err := client.Dial(address, nil)
			require.NoError(t, err)
			_, err = c.Offsets(testutil.Context(t, time.Minute))
			require.NoError(t, err)
			require.NoError(t, c.Close())
		}
	})
}

func TestAddressesThatAreNone(t *testing.T) {
	for _, address := range []string{"", "host", "http://host:1", "unix://relative"} {
		_, err := client.Dial(address, nil)
		require.Error(t, err, address)
	}
}
