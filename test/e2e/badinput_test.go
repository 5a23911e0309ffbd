package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/test/harness"
)

// Bad requests: each gets a clear status, through the proxy and straight at the
// leader, and the log goes on as if they had not been.
func TestBadRequests(t *testing.T) {
	w := start(t)
	for name, conn := range map[string]*grpc.ClientConn{
		"through the proxy":      w.naive(),
		"straight to the leader": w.dial("client", w.leader()),
	} {
		t.Run(name, func(t *testing.T) {
			client := logv1.NewLogClient(conn)
			before, err := produce(w.ctx, conn, "before")
			require.NoError(t, err)

			_, err = client.Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: make([]byte, 1<<20)}})
			require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
			require.Contains(t, err.Error(), "1044480", "the limit is named")

			err = conn.Invoke(w.ctx, "/log.v1.Log/Compact", &emptypb.Empty{}, &emptypb.Empty{})
			require.Equal(t, codes.Unimplemented, status.Code(err), "%v", err)

			for _, off := range []uint64{before + 1000, math.MaxUint64} {
				_, err = client.Consume(w.ctx, &logv1.ConsumeRequest{Offset: off})
				requireOutOfRange(t, err, off)
				s, err := client.ConsumeStream(w.ctx, &logv1.ConsumeRequest{Offset: off})
				require.NoError(t, err)
				_, err = s.Recv()
				requireOutOfRange(t, err, off)
			}

			resp, err := client.Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{}})
			require.NoError(t, err, "an empty record is a record")
			require.Equal(t, before+1, resp.GetOffset(), "nothing of the above is in the log")
			resp, err = client.Produce(w.ctx, &logv1.ProduceRequest{})
			if err == nil { // absent and empty are the same to some; never two offsets apart
				require.Equal(t, before+2, resp.GetOffset())
			} else {
				require.Equal(t, codes.InvalidArgument, status.Code(err))
			}
			got, err := client.Consume(w.ctx, &logv1.ConsumeRequest{Offset: before + 1})
			require.NoError(t, err)
			require.Empty(t, got.GetRecord().GetValue())
			require.Equal(t, before+1, got.GetRecord().GetOffset())
		})
	}
}

func requireOutOfRange(t *testing.T, err error, off uint64) {
	t.Helper()
	st := status.Convert(err)
	require.Equal(t, codes.OutOfRange, st.Code(), "%v", err)
	info, ok := apierr.From(err)
	require.True(t, ok)
	require.Equal(t, apierr.ReasonOutOfRange, info.Reason)
	for _, d := range st.Details() {
		if m, ok := d.(*errdetails.LocalizedMessage); ok {
			require.Contains(t, m.GetMessage(), "The requested offset is outside the log's range")
			return
		}
	}
	t.Fatalf("offset %d: no LocalizedMessage in %v", off, st.Details())
}

// Garbage on the port that gRPC and Raft share disturbs nobody else.
func TestGarbageOnTheRPCPort(t *testing.T) {
	w := start(t)
	tr := w.load()
	tr.more(50)
	garbage := []byte(strings.Repeat("\x00\xffGET / HTTP/1.1\r\n", 4096))

	w.underOneLeader(func(leader *harness.Node) error {
		t.Run("before the handshake", func(t *testing.T) {
			conn, err := new(net.Dialer).DialContext(w.ctx, "tcp", leader.RPC)
			require.NoError(t, err)
			sendUntilClosed(t, conn, garbage)
		})
		for _, alpn := range []string{tlsconf.ALPNgRPC, tlsconf.ALPNRaft} {
			t.Run("after the handshake, "+alpn, func(t *testing.T) {
				cert := "client"
				if alpn == tlsconf.ALPNRaft {
					cert = w.follower().Name
				}
				conf, err := w.TLS(cert, leader, alpn)
				require.NoError(t, err)
				conn, err := (&tls.Dialer{Config: conf}).DialContext(w.ctx, "tcp", leader.RPC)
				require.NoError(t, err)
				sendUntilClosed(t, conn, garbage)
			})
		}
		tr.more(100)
		if now := w.leader(); now != leader {
			return fmt.Errorf("%s leads, and not %s any more", now.Name, leader.Name)
		}
		return nil
	})
	tr.finish()
}

func sendUntilClosed(t *testing.T, conn net.Conn, b []byte) {
	t.Helper()
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, _ = conn.Write(b) // may fail: the node need not read it all
	buf := make([]byte, 4096)
	for {
		if _, err := conn.Read(buf); err != nil {
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the node kept the connection")
			return
		}
	}
}

// command runs a program to its end.
func command(t *testing.T, name string, args ...string) (code int, output string) {
	t.Helper()
	p := &harness.Process{Name: name, Path: filepath.Join(bin, name), Args: args, Log: filepath.Join(t.TempDir(), name+".log")}
	require.NoError(t, p.Start())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil {
		require.NoError(t, p.Kill())
		require.NoError(t, err, "%s %s did not end:\n%s", name, strings.Join(args, " "), p.Tail(20))
	}
	return code, p.Tail(200)
}

// A program that cannot start says what is wrong, names it, and ends with 1.
func TestRefusesToStart(t *testing.T) {
	w := start(t)
	tr := w.load()
	tr.more(50)
	n := w.Nodes[0]
	text, err := os.ReadFile(n.Config)
	require.NoError(t, err)
	write := func(t *testing.T, text string) string {
		path := filepath.Join(t.TempDir(), "broken.hcl")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	host, _, err := net.SplitHostPort(n.RPC)
	require.NoError(t, err)

	t.Run("data directory of another process", func(t *testing.T) {
		other := strings.ReplaceAll(string(text), `"`+host+`"`, `"127.0.0.1"`) + "\nports {\n rpc = 0\n gossip = 0\n admin = 0\n}\n"
		code, out := command(t, "logd", "agent", "-config", write(t, other))
		require.Equal(t, 1, code, out)
		require.Contains(t, out, n.DataDir)
	})
	t.Run("port in use", func(t *testing.T) {
		other := strings.ReplaceAll(string(text), n.DataDir, t.TempDir())
		code, out := command(t, "logd", "agent", "-config", write(t, other))
		require.Equal(t, 1, code, out)
		require.Contains(t, out, n.RPC)
		require.Contains(t, out, "in use")
	})
	t.Run("certificate with the wrong role", func(t *testing.T) {
		other := strings.ReplaceAll(string(text), n.DataDir, t.TempDir())
		other = strings.ReplaceAll(other, n.Name+".pem", "client.pem")
		other = strings.ReplaceAll(other, n.Name+"-key.pem", "client-key.pem")
		other = strings.ReplaceAll(other, `"`+n.Name+`"`, `"client"`)
		code, out := command(t, "logd", "agent", "-config", write(t, other))
		require.Equal(t, 1, code, out)
		require.Contains(t, out, "storage")
		require.Contains(t, out, "client.pem")
	})
	t.Run("configuration with three mistakes", func(t *testing.T) {
		path := write(t, string(text)+"\ncolour = \"blue\"\ndrain_timeout = \"soon\"\nports {\n rpc = 70000\n}\n")
		for _, args := range [][]string{{"validate", path}, {"agent", "-config", path}} {
			code, out := command(t, "logd", args...)
			require.Equal(t, 1, code, out)
			require.Contains(t, out, "colour")
			require.Contains(t, out, "soon")
			require.Contains(t, out, "70000")
			require.Contains(t, out, "broken.hcl")
		}
	})
	t.Run("plaintext proxy listener off loopback", func(t *testing.T) {
		conf, err := os.ReadFile(w.proxy.Config)
		require.NoError(t, err)
		path := write(t, strings.Replace(string(conf), `"`+w.proxy.Addr+`"`, `"0.0.0.0:8410"`, 1))
		code, out := command(t, "logproxy", "agent", "-config", path)
		require.Equal(t, 1, code, out)
		require.Contains(t, out, "listener")
		require.Contains(t, out, "0.0.0.0:8410")
	})
	tr.finish()
}

// A certificate of the wrong role gets nowhere on a connection either.
func TestRolesOnTheWire(t *testing.T) {
	w := start(t)
	leader := w.leader()
	client := w.dial("client", leader)
	err := client.Invoke(w.ctx, "/node.v1.Node/Stats", &emptypb.Empty{}, &emptypb.Empty{})
	require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
	require.Contains(t, err.Error(), "client")

	conf, err := w.TLS("client", leader, tlsconf.ALPNRaft)
	require.NoError(t, err)
	conn, err := (&tls.Dialer{Config: conf}).DialContext(w.ctx, "tcp", leader.RPC)
	if err == nil { // TLS 1.3: the client learns of the refusal with its first read
		sendUntilClosed(t, conn, []byte("x"))
	}
	_, err = produce(w.ctx, w.naive(), "nobody was disturbed")
	require.NoError(t, err)
}
