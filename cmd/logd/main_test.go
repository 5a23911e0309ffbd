package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestMain(m *testing.M) {
	// A probe of memberlist's outlives its Shutdown by as long as it waits for an answer.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// buffer may be written and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type result struct {
	code           int
	stdout, stderr string
}

func logd(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.Env{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs}
	code := cli.Main(t.Context(), "logd", "1.2.3", commands(telemetry.ReadBuild("1.2.3")), env, args)
	return result{code, out.String(), errs.String()}
}

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

func serve(t *testing.T, register func(*grpc.Server), opts ...grpc.ServerOption) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := grpc.NewServer(opts...)
	register(srv)
	done := make(chan error, 1) // 1: Serve's result
	go func() { done <- srv.Serve(lis) }()
	t.Cleanup(func() {
		srv.Stop()
		require.NoError(t, <-done)
	})
	return lis.Addr().String()
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

func TestNobodyThere(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, lis.Close())
	for _, command := range []string{"produce", "consume", "servers"} {
		got := logd(t, "x\n", command, "-address", lis.Addr().String())
		require.Equal(t, 1, got.code, command)
		require.Contains(t, got.stderr, lis.Addr().String())
		require.Contains(t, got.stderr, "is it running")
	}
}

func TestServers(t *testing.T) {
	_, addr := startLog(t)
	require.Equal(t, result{0, "ID           ADDRESS         LEADER\nn1.00000001  127.0.0.1:8400  true\nn2.00000002  127.0.0.2:8400  false\n", ""},
		logd(t, "", "servers", "-address", addr))
	require.JSONEq(t, `[{"id":"n1.00000001","address":"127.0.0.1:8400","leader":true},{"id":"n2.00000002","address":"127.0.0.2:8400","leader":false}]`,
		logd(t, "", "servers", "-address", addr, "-format", "json").stdout)
}

// member answers for a node.
type member struct {
	nodev1.UnimplementedNodeServer
	view  *nodev1.ClusterView
	stats *nodev1.StatsResponse
}

func (m *member) WatchCluster(_ *nodev1.WatchClusterRequest, stream nodev1.Node_WatchClusterServer) error {
	if err := stream.Send(m.view); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (m *member) Stats(context.Context, *nodev1.StatsRequest) (*nodev1.StatsResponse, error) {
	return m.stats, nil
}

func TestMembersAndPeers(t *testing.T) {
	ca := tlstest.NewCA(t, "test")
	view := &nodev1.ClusterView{LeaderId: "n1.00000001"}
	start := func(name, id, state string, commit uint64) string {
		conf := ca.Source(t, tlsconf.RoleStorage, name).Server([]string{tlsconf.ALPNgRPC}, tlsconf.RoleAdmin)
		m := &member{view: view, stats: &nodev1.StatsResponse{
			NodeId: id, State: state, CommitIndex: commit, Visible: commit * 10, Ready: true, Version: "1.2.3",
		}}
		return serve(t, func(srv *grpc.Server) { nodev1.RegisterNodeServer(srv, m) }, grpc.Creds(credentials.NewTLS(conf)))
	}
	first := start("n1", "n1.00000001", "leader", 100)
	second := start("n2", "n2.00000002", "follower", 99)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	view.Peers = []*nodev1.Peer{
		{Id: "n1.00000001", RpcAddr: first, Voter: true},
		{Id: "n2.00000002", RpcAddr: second, Voter: true},
		{Id: "n3.00000003", RpcAddr: gone.Addr().String()},
		{Id: "n4.00000004"},
		{Id: "n5.00000005", RpcAddr: second},
	}
	admin := ca.Files(t, tlsconf.RoleAdmin, "ops")
	flags := []string{"-address", first, "-ca-cert", admin.CA, "-cert", admin.Cert, "-key", admin.Key}

	rows := func(args ...string) [][]string {
		got := logd(t, "", append(args, flags...)...)
		require.Equal(t, 0, got.code, got.stderr)
		var out [][]string
		for l := range strings.Lines(got.stdout) {
			out = append(out, strings.Fields(l))
		}
		return out
	}
	require.Equal(t, [][]string{
		{"ID", "ADDRESS", "STATE", "VOTER", "READY", "NEXT", "OFFSET", "VERSION"},
		{"n1.00000001", first, "leader", "true", "true", "1000", "1.2.3"},
		{"n2.00000002", second, "follower", "true", "true", "990", "1.2.3"},
		{"n3.00000003", gone.Addr().String(), "unreachable", "false", "-", "-", "-"},
		{"n4.00000004", "-", "unreachable", "false", "-", "-", "-"},
		{"n5.00000005", second, "unreachable", "false", "-", "-", "-"},
	}, rows("members"))
	require.Equal(t, [][]string{
		{"n1.00000001", first, "leader", "true", "100", "-"},
		{"n2.00000002", second, "follower", "true", "99", "1", "commit"},
		{"n3.00000003", gone.Addr().String(), "unreachable", "false", "-", "-"},
	}, rows("operator", "raft", "list-peers")[1:4])

	got := logd(t, "", append([]string{"members", "-format=json"}, flags...)...)
	var members []map[string]any
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &members))
	require.Equal(t, true, members[0]["leader"])
	require.Contains(t, members[4]["error"], "another node answers there: n2.00000002")
}

func TestMembersOfASidecarSaysWhy(t *testing.T) {
	_, addr := startLog(t)
	got := logd(t, "", "members", "-address", addr)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "not of a sidecar")
}

func TestMembersOfANodeWithoutCertificates(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { // ends with the listener
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			_ = c.Close() // as a node does to who speaks no TLS
		}
	}()
	defer lis.Close()
	got := logd(t, "", "members", "-address", lis.Addr().String())
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "-ca-cert, -cert and -key")
}

func TestCertificatesAndKey(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem")
	got := logd(t, "", "tls", "ca", "create", "-cluster", "prod", "-out", dir)
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stdout, ca)

	create := []string{"tls", "cert", "create", "-ca", ca, "-ca-key", caKey, "-out", dir}
	got = logd(t, "", append(create, "-role", "storage", "-name", "n1", "-dns", "n1.example", "-ip", "10.0.0.1")...)
	require.Equal(t, 0, got.code, got.stderr)
	source, err := tlsconf.Load(tlsconf.Files{CA: ca, Cert: filepath.Join(dir, "n1.pem"), Key: filepath.Join(dir, "n1-key.pem")})
	require.NoError(t, err)
	require.Equal(t, "spiffe://prod/storage/n1", source.Identity().String())

	got = logd(t, "", append(create, "-role", "storage", "-name", "n1")...)
	require.Equal(t, 1, got.code, "existing files are kept")
	require.Contains(t, got.stderr, "n1.pem")
	require.Equal(t, 0, logd(t, "", append(create, "-role", "proxy", "-name", "n1", "-force")...).code)

	for _, args := range [][]string{
		{"-role", "king", "-name", "n1"}, {"-name", "n1"}, {"-role", "proxy"},
		{"-role", "proxy", "-name", "../n1"}, {"-role", "proxy", "-name", "p", "-ip", "x"}, {"-role", "proxy", "-name", "p", "-days", "0"},
	} {
		require.Equal(t, 2, logd(t, "", append(create, args...)...).code, "%v", args)
	}
	require.Equal(t, 2, logd(t, "", "tls", "ca", "create").code)

	one, two := logd(t, "", "keygen"), logd(t, "", "keygen")
	require.NotEqual(t, one.stdout, two.stdout)
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(one.stdout))
	require.NoError(t, err)
	require.Len(t, key, config.GossipKeyLen)
}

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.hcl"), filepath.Join(dir, "bad.hcl")
	key := strings.TrimSpace(logd(t, "", "keygen").stdout)
	require.NoError(t, os.WriteFile(good, []byte(`
data_dir = "/data"
bootstrap_expect = 3
gossip_key = "`+key+`"
tls {
  ca_file = "a"
  cert_file = "b"
  key_file = "c"
}`), 0o600))
	require.NoError(t, os.WriteFile(bad, []byte("bogus = 1\ndrain_timeout = \"soon\"\nports {\n  rpc = 99999\n}\n"), 0o600))

	require.Equal(t, result{0, "Configuration is valid!\n", ""}, logd(t, "", "validate", good))
	got := logd(t, "", "validate", good, bad)
	require.Equal(t, 1, got.code)
	require.Empty(t, got.stdout)
	for _, want := range []string{"bad.hcl line 1", `"bogus"`, "bad.hcl line 2", `"soon" is not a duration`, "bad.hcl line 4", "99999 is out of range"} {
		require.Contains(t, got.stderr, want)
	}
	require.Equal(t, 2, logd(t, "", "validate").code)
	require.Equal(t, 1, logd(t, "", "validate", filepath.Join(dir, "none.hcl")).code)

	acl, policy := filepath.Join(dir, "acl.hcl"), filepath.Join(dir, "policy.csv")
	require.NoError(t, os.WriteFile(acl, []byte("acl {\n  policy = \""+policy+"\"\n}\n"), 0o600))
	got = logd(t, "", "validate", good, acl)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "acl: "+policy+": no such file or directory")
	require.NoError(t, os.WriteFile(policy, []byte("p, root, *, produce\np, root, *, comsume\n"), 0o600))
	got = logd(t, "", "validate", good, acl)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "acl: "+policy+":2: action \"comsume\": one of produce, consume, admin, join, impersonate")
	require.NoError(t, os.WriteFile(policy, []byte("p, root, *, produce\n"), 0o600))
	require.Equal(t, result{0, "Configuration is valid!\n", ""}, logd(t, "", "validate", good, acl))
	require.NoError(t, os.WriteFile(acl, []byte("acl {\n}\n"), 0o600))
	got = logd(t, "", "validate", good, acl)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "acl.policy")
}

func TestVersion(t *testing.T) {
	require.True(t, strings.HasPrefix(logd(t, "", "version").stdout, "logd 1.2.3"))
	require.Contains(t, logd(t, "", "version", "-format", "json").stdout, `"version": "1.2.3"`)
}

// Every command explains itself.
func TestHelp(t *testing.T) {
	for _, c := range commands(telemetry.Build{}) {
		for _, flag := range []string{"-h", "--help"} {
			got := logd(t, "", append(strings.Fields(c.Name), flag)...)
			require.Equal(t, 0, got.code, c.Name)
			require.Contains(t, got.stdout, "Usage: logd "+c.Name)
			require.Empty(t, got.stderr)
		}
		require.LessOrEqual(t, len(c.Synopsis), 50, c.Name)
	}
}
