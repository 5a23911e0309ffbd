package history_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// lie is what a liar does wrong, now and then.
type lie string

const (
	honest          lie = "nothing"
	losesAcked      lie = "acknowledges what it does not append"
	appendsTwice    lie = "appends twice"
	repeatsOffset   lie = "acknowledges two at one offset"
	changesContent  lie = "appends something else"
	turnsStream     lie = "appends a produce stream out of order"
	dropsFromStream lie = "leaves a record of a produce stream out"
	turnsTime       lie = "appends what comes later before it"
	skips           lie = "leaves a record out of a stream"
	repeats         lie = "delivers a record twice"
	forgetsWrites   lie = "does not know what its client has written"
	goesBack        lie = "knows less through the other proxy"
	appendsNotSent  lie = "says NOT_SENT of what it appends"
	showsDifferent  lie = "shows a reader another value"
	staleLinears    lie = "answers a linearizable read from the past"
	deniesWrite     lie = "says that its client's write is out of range"
	forgetsRequest  lie = "does not know a request id again"
	showsVanishing  lie = "delivers what is not committed"
	refusesExisting lie = "refuses an offset inside the range that it names"
)

// liar is a log in memory behind gRPC, as two proxies of it, with a switchable lie.
// Every seventh chance to lie is taken.
type liar struct {
	logv1.UnimplementedLogServer
	lie    lie
	second bool // the other proxy
	*liarLog
}

type liarLog struct {
	mu      sync.Mutex
	records []*logv1.Record
	keys    map[string]uint64
	grew    chan struct{} // closed and replaced, under mu, when records grows
	chances int
	hole    int // place of a record that comes later, plus one
}

// lies says whether this chance is taken. mu is held.
func (l *liar) lies(what lie) bool {
	if l.lie != what {
		return false
	}
	l.chances++
	return l.chances%7 == 0
}

// put appends rec and answers its offset. mu is held.
func (l *liar) put(rec *logv1.Record) uint64 {
	rec = proto.CloneOf(rec)
	rec.Offset, rec.Timestamp = uint64(len(l.records)), 1+int64(len(l.records))
	l.records = append(l.records, rec)
	close(l.grew)
	l.grew = make(chan struct{})
	return rec.Offset
}

func (l *liar) append(rec *logv1.Record) (uint64, error) {
	switch {
	case l.lies(losesAcked):
		return uint64(len(l.records)), nil
	case l.lies(appendsTwice):
		defer l.put(rec)
	case l.lies(repeatsOffset):
		return l.put(rec) - 1, nil
	case l.lies(changesContent):
		return l.put(&logv1.Record{Value: append([]byte("not "), rec.GetValue()...)}), nil
	case l.lies(appendsNotSent):
		l.put(rec)
		return 0, apierr.NotSent{}
	case l.lie == turnsTime && l.hole > 0:
		at := l.hole - 1
		l.records[at] = proto.CloneOf(rec)
		l.records[at].Offset, l.records[at].Timestamp, l.hole = uint64(at), 1, 0
		return uint64(at), nil
	case l.lies(turnsTime):
		l.hole = int(l.put(&logv1.Record{})) + 1
	}
	return l.put(rec), nil
}

func (l *liar) Produce(ctx context.Context, req *logv1.ProduceRequest) (*logv1.ProduceResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	id := md.Get("logd-request-id")
	if len(id) > 0 {
		if off, ok := l.keys[id[0]]; ok && !l.lies(forgetsRequest) {
			return &logv1.ProduceResponse{Offset: off}, nil
		}
	}
	off, err := l.append(req.GetRecord())
	if err == nil && len(id) > 0 {
		l.keys[id[0]] = off
	}
	return &logv1.ProduceResponse{Offset: off}, err
}

func (l *liar) ProduceStream(s grpc.BidiStreamingServer[logv1.ProduceRequest, logv1.ProduceResponse]) error {
	for {
		req, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		recs := []*logv1.Record{req.GetRecord()}
		l.mu.Lock()
		if l.lies(turnsStream) { // this one comes after the next one
			l.mu.Unlock()
			if req, err = s.Recv(); err == nil {
				recs = append(recs, req.GetRecord())
			}
			l.mu.Lock()
			var offs []uint64
			for i := range recs {
				offs = append(offs, l.put(recs[len(recs)-1-i]))
			}
			l.mu.Unlock()
			for i := range offs {
				if err := s.Send(&logv1.ProduceResponse{Offset: offs[len(offs)-1-i]}); err != nil {
					return err
				}
			}
			continue
		}
		if l.lies(dropsFromStream) {
			// The next one is in, and the stream breaks before anything is told.
			l.mu.Unlock()
			if req, err = s.Recv(); err != nil {
				return nil
			}
			l.mu.Lock()
			l.put(req.GetRecord())
			l.mu.Unlock()
			return apierr.OutcomeUnknown{}
		}
		off, err := l.append(recs[0])
		l.mu.Unlock()
		if err != nil {
			return err
		}
		if err := s.Send(&logv1.ProduceResponse{Offset: off}); err != nil {
			return err
		}
	}
}

func (l *liar) Consume(_ context.Context, req *logv1.ConsumeRequest) (*logv1.ConsumeResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	off, next := req.GetOffset(), uint64(len(l.records))
	switch {
	case off >= next:
	case req.GetLinearizable() && l.lies(staleLinears), !req.GetLinearizable() && l.lies(deniesWrite):
		next = off
	case l.lies(refusesExisting):
		return nil, apierr.OutOfRange{Offset: off, Next: next}
	}
	if off >= next {
		return nil, apierr.OutOfRange{Offset: off, Next: next}
	}
	return &logv1.ConsumeResponse{Record: l.shown(off)}, nil
}

// shown is the record at off for a reader. mu is held.
func (l *liar) shown(off uint64) *logv1.Record {
	rec := l.records[off]
	if l.lies(showsDifferent) {
		rec = proto.CloneOf(rec)
		rec.Value = append(rec.Value, '!')
	}
	return rec
}

func (l *liar) GetOffsets(context.Context, *logv1.GetOffsetsRequest) (*logv1.GetOffsetsResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := uint64(len(l.records))
	if next > 0 && l.lies(forgetsWrites) {
		next /= 2
	}
	if l.second && next > 0 && l.lie == goesBack {
		next /= 2
	}
	return &logv1.GetOffsetsResponse{Next: next}, nil
}

func (l *liar) ConsumeStream(req *logv1.ConsumeRequest, s grpc.ServerStreamingServer[logv1.ConsumeResponse]) error {
	for at := req.GetOffset(); ; at++ {
		l.mu.Lock()
		for at >= uint64(len(l.records)) || l.hole > 0 {
			grew := l.grew
			l.mu.Unlock()
			select {
			case <-grew:
			case <-s.Context().Done():
				return nil
			}
			l.mu.Lock()
		}
		send := []*logv1.Record{l.shown(at)}
		if l.lies(skips) {
			send = nil
		}
		if l.lies(repeats) {
			send = append(send, send[0])
		}
		if l.lies(showsVanishing) && at == uint64(len(l.records))-1 {
			lost := proto.CloneOf(send[0])
			lost.Offset, lost.Value = at+1<<20, []byte("vanishes")
			send = append(send, lost)
		}
		l.mu.Unlock()
		for _, rec := range send {
			if err := s.Send(&logv1.ConsumeResponse{Record: rec}); err != nil {
				return err
			}
		}
	}
}

// serve is a connection to l.
func serve(t *testing.T, l *liar) *grpc.ClientConn {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	logv1.RegisterLogServer(srv, l)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }() // joined by the cleanup
	conn, err := grpc.NewClient("passthrough:///liar", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		srv.Stop()
		require.NoError(t, <-served)
	})
	return conn
}
