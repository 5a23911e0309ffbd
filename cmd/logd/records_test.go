package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/telemetry"
)

// memoryLog is a log service in memory.
type memoryLog struct {
	logv1.UnimplementedLogServer

	mu      sync.Mutex
	records []*logv1.Record // guarded by mu
	grew    chan struct{}   // guarded by mu; closed and replaced at each append
	refuse  int             // the length at which appending fails; 0: never
}

func (s *memoryLog) append(r *logv1.Record) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse > 0 && len(s.records) >= s.refuse {
		return 0, status.Error(codes.ResourceExhausted, "a limit is reached")
	}
	r.Offset = uint64(len(s.records))
	r.Timestamp = int64(len(s.records)) * int64(time.Hour)
	s.records = append(s.records, r)
	close(s.grew)
	s.grew = make(chan struct{})
	return r.Offset, nil
}

func (s *memoryLog) Produce(_ context.Context, req *logv1.ProduceRequest) (*logv1.ProduceResponse, error) {
	off, err := s.append(req.GetRecord())
	return &logv1.ProduceResponse{Offset: off}, err
}

func (s *memoryLog) ProduceStream(stream logv1.Log_ProduceStreamServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		off, err := s.append(req.GetRecord())
		if err != nil {
			return err
		}
		if err := stream.Send(&logv1.ProduceResponse{Offset: off}); err != nil {
			return err
		}
	}
}

func (s *memoryLog) ConsumeStream(req *logv1.ConsumeRequest, stream logv1.Log_ConsumeStreamServer) error {
	for off := req.GetOffset(); ; {
		s.mu.Lock()
		records, grew := s.records, s.grew
		s.mu.Unlock()
		if off < uint64(len(records)) {
			if err := stream.Send(&logv1.ConsumeResponse{Record: records[off]}); err != nil {
				return err
			}
			off++
			continue
		}
		select {
		case <-grew:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// Consume is for linearizable reads only: others go by streams.
func (s *memoryLog) Consume(_ context.Context, req *logv1.ConsumeRequest) (*logv1.ConsumeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !req.GetLinearizable():
		return nil, status.Error(codes.InvalidArgument, "not linearizable")
	case req.GetOffset() >= uint64(len(s.records)):
		return nil, apierr.OutOfRange{Offset: req.GetOffset(), Next: uint64(len(s.records))}.GRPCStatus().Err()
	}
	return &logv1.ConsumeResponse{Record: s.records[req.GetOffset()]}, nil
}

func (s *memoryLog) GetOffsets(_ context.Context, req *logv1.GetOffsetsRequest) (*logv1.GetOffsetsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	res := &logv1.GetOffsetsResponse{Next: uint64(len(s.records))}
	if req.Time != nil {
		at := res.GetNext()
		for i, r := range s.records {
			if r.GetTimestamp() >= req.GetTime() {
				at = uint64(i)
				break
			}
		}
		res.AtTime = &at
	}
	return res, nil
}

func (s *memoryLog) GetServers(context.Context, *logv1.GetServersRequest) (*logv1.GetServersResponse, error) {
	return &logv1.GetServersResponse{Servers: []*logv1.Server{
		{Id: "n1.00000001", RpcAddr: "127.0.0.1:8400", IsLeader: true}, {Id: "n2.00000002", RpcAddr: "127.0.0.2:8400"},
	}}, nil
}

func startLog(t *testing.T, values ...string) (*memoryLog, string) {
	t.Helper()
	s := &memoryLog{grew: make(chan struct{})}
	for _, v := range values {
		_, err := s.append(&logv1.Record{Value: []byte(v)})
		require.NoError(t, err)
	}
	return s, serve(t, func(srv *grpc.Server) { logv1.RegisterLogServer(srv, s) })
}

func TestProduceThenConsume(t *testing.T) {
	_, addr := startLog(t)
	var input strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&input, "line %d\r\n", i) // a carriage return is the record's own
	}
	input.WriteString("\nlast, unfinished") // an empty record before it
	got := logd(t, input.String(), "produce", "-address", addr)
	require.Equal(t, result{0, "produced 5002  acked 5002  first offset 0  last offset 5001\n", ""}, got)

	got = logd(t, "", "consume", "-address", addr)
	require.Equal(t, 0, got.code)
	require.Equal(t, input.String()+"\n", got.stdout, "byte for byte what went in")
}

func TestProduceReportsWhatIsInTheLog(t *testing.T) {
	s, addr := startLog(t)
	s.refuse = 3
	got := logd(t, "a\nb\nc\nd\n", "produce", "-address", addr, "-window", "1", "-format", "json")
	require.Equal(t, 1, got.code)
	var count map[string]int
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &count))
	require.Equal(t, map[string]int{"produced": 4, "acked": 3, "first_offset": 0, "last_offset": 2}, count)
	require.Contains(t, got.stderr, "a limit is reached")
}

func TestProduceNamesTheLineThatIsTooLong(t *testing.T) {
	for _, size := range []int{int(config.MaxRecordSize) + 1, 3 << 20} {
		_, addr := startLog(t)
		got := logd(t, "fine\n"+strings.Repeat("x", size)+"\nafter\n", "produce", "-address", addr)
		require.Equal(t, 1, got.code)
		require.Contains(t, got.stderr, "line 2 is too long: a record has at most 1044480 bytes")
		require.Contains(t, got.stdout, "produced 1  acked 1")
	}
}

func TestProduceInterrupted(t *testing.T) {
	s, addr := startLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	stdin, typing := io.Pipe()
	var out, errs buffer
	done := make(chan int, 1) // 1: the exit code
	go func() {
		done <- cli.Main(ctx, "logd", "", commands(telemetry.Build{}), cli.Env{Stdin: stdin, Stdout: &out, Stderr: &errs}, []string{"produce", "-address", addr})
	}()
	_, err := io.WriteString(typing, "one\ntwo\n")
	require.NoError(t, err)
	for grew := true; grew; {
		s.mu.Lock()
		n, ch := len(s.records), s.grew
		s.mu.Unlock()
		if grew = n < 2; grew {
			<-ch
		}
	}
	cancel()
	require.Equal(t, 1, <-done)
	require.Contains(t, out.String(), "produced 2  acked 2")
	require.Contains(t, errs.String(), "interrupted")
	require.NoError(t, typing.Close())
}

func TestConsume(t *testing.T) {
	_, addr := startLog(t, "a", "b", "c", "d")
	tests := map[string]struct {
		args string
		want string
	}{
		"all":             {"", "a\nb\nc\nd\n"},
		"from earliest":   {"-from earliest", "a\nb\nc\nd\n"},
		"from latest":     {"-from latest", ""},
		"from an offset":  {"-from 2", "c\nd\n"},
		"from the end":    {"-from 4", ""},
		"from a time":     {"-from 1970-01-01T01:30:00Z", "c\nd\n"},
		"from long ago":   {"-from 900000h", "a\nb\nc\nd\n"},
		"at most two":     {"-n 2 -from 1", "b\nc\n"},
		"with offsets":    {"-offsets -from 3", "3\td\n"},
		"follow, limited": {"-follow -from 1 -n 2", "b\nc\n"},
		"one, as of now":  {"-linearizable -from 2", "c\n"},
		"as JSON":         {"-format json -from 3", `{"offset":3,"time":"1970-01-01T03:00:00Z","value":{"text":"d"}}` + "\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := logd(t, "", append([]string{"consume", "-address", addr}, strings.Fields(tt.args)...)...)
			require.Equal(t, result{0, tt.want, ""}, got)
		})
	}

	got := logd(t, "", "consume", "-address", addr, "-from", "18446744073709551615")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "offset 18446744073709551615 is outside the log, which has [0, 4)")
	got = logd(t, "", "consume", "-address", addr, "-from", "yesterday")
	require.Equal(t, 2, got.code)
	got = logd(t, "", "consume", "-address", addr, "-linearizable", "-from", "4")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "offset 4 outside [0, 4)")
	for _, args := range []string{"-linearizable", "-linearizable -from earliest", "-linearizable -from 1 -follow", "-linearizable -from 1 -n 2"} {
		got = logd(t, "", append([]string{"consume", "-address", addr}, strings.Fields(args)...)...)
		require.Equal(t, 2, got.code, args)
	}
}

func TestConsumeShowsBytesThatAreNoText(t *testing.T) {
	s, addr := startLog(t)
	_, err := s.append(&logv1.Record{Value: []byte{0xff}, Key: []byte("k"), Headers: []*logv1.Header{{Key: "h", Value: []byte("v")}}})
	require.NoError(t, err)
	got := logd(t, "", "consume", "-address", addr, "-format", "json")
	require.JSONEq(t, `{"offset":0,"key":{"text":"k"},"headers":[{"key":"h","value":{"text":"v"}}],"value":{"base64":"/w=="}}`, got.stdout)
}

func TestConsumeFollowsUntilInterrupted(t *testing.T) {
	s, addr := startLog(t, "before")
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs buffer
	done := make(chan int, 1) // 1: the exit code
	go func() {
		done <- cli.Main(ctx, "logd", "", commands(telemetry.Build{}), cli.Env{Stdout: &out, Stderr: &errs}, []string{"consume", "-follow", "-from=0", "-address", addr})
	}()
	for i := range 3 {
		_, err := s.append(&logv1.Record{Value: []byte(strconv.Itoa(i))})
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return out.String() == "before\n0\n1\n2\n" }, time.Minute, 10*time.Millisecond)
	cancel()
	require.Zero(t, <-done, "ending a tail is no failure")
	require.Empty(t, errs.String())
}
