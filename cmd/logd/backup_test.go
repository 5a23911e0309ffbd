package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/logd-io/logd/internal/cli"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/telemetry"
)

// archivist is a node of which backups are made, as a test says.
type archivist struct {
	nodev1.UnimplementedNodeServer
	ends   func() error                                                    // what a read beyond the end is told
	stream func(*nodev1.FetchRequest, nodev1.Node_FetchStreamServer) error // one after the other
	asked  []uint64                                                        // offsets
}

func (a *archivist) Fetch(_ context.Context, req *nodev1.FetchRequest) (*nodev1.FetchResponse, error) {
	if req.GetOffset() != math.MaxUint64 || !req.GetLinearizable() {
		return nil, apierr.Invalid{Field: "offset", Why: "the end as of now was to be asked for"}
	}
	return nil, a.ends()
}

func (a *archivist) FetchStream(req *nodev1.FetchRequest, s nodev1.Node_FetchStreamServer) error {
	if !req.GetForBackup() {
		return apierr.Invalid{Field: "for_backup", Why: "it is one"}
	}
	a.asked = append(a.asked, req.GetOffset())
	return a.stream(req, s)
}

// end says that the log is [2, 12).
func end() error { return apierr.OutOfRange{Offset: math.MaxUint64, Lowest: 2, Next: 12} }

const archived = "3a3a1e60-8b5e-4a3e-9f1c-1f3a7d1f0c55"

// some are count batches of two records each from an offset on, of a cluster.
func some(cluster string, from uint64, count int) *nodev1.FetchResponse {
	r := &nodev1.FetchResponse{ClusterId: cluster, Lowest: 2, Visible: 12}
	for i := range count {
		r.Batches = append(r.Batches, &nodev1.Batch{
			FirstOffset: from + uint64(2*i), Count: 2, Timestamp: int64(1000 + i), Records: []byte{1, 'a', 2, 'b', 'c'},
		})
	}
	return r
}

// backUp runs the command against a.
func backUp(t *testing.T, a *archivist, args ...string) (file string, got result) {
	t.Helper()
	if a.ends == nil {
		a.ends = end
	}
	addr := serve(t, func(srv *grpc.Server) { nodev1.RegisterNodeServer(srv, a) })
	file = filepath.Join(t.TempDir(), "b.logd")
	return file, logd(t, "", append([]string{"backup", "-address", addr, "-o", file}, args...)...)
}

func readExport(t *testing.T, file string) (h replica.ExportHeader, all []replica.ExportBatch) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	x, err := replica.NewExportReader(bytes.NewReader(b))
	require.NoError(t, err)
	for {
		e, err := x.Next()
		if errors.Is(err, io.EOF) {
			return x.Header, all
		}
		require.NoError(t, err)
		e.Records = bytes.Clone(e.Records)
		all = append(all, *e)
	}
}

// A node that does not know yet is asked again, one that goes away is waited for, and what
// comes goes on where it was.
func TestBackupGoesOn(t *testing.T) {
	a := &archivist{}
	a.ends = func() error {
		a.ends = end
		return apierr.PositionUnknown{}
	}
	a.stream = func(req *nodev1.FetchRequest, s nodev1.Node_FetchStreamServer) error {
		switch len(a.asked) {
		case 1:
			return apierr.Behind{Visible: 1}
		case 2:
			if err := s.Send(some(archived, 2, 1)); err != nil {
				return err
			}
			return apierr.Draining{}
		case 3:
			if err := s.Send(some(archived, 4, 1)); err != nil {
				return err
			}
			return apierr.Overloaded{RetryAfter: time.Second} // we were slow
		}
		for _, r := range []*nodev1.FetchResponse{some(archived, 6, 0), some(archived, 6, 4)} {
			if err := s.Send(r); err != nil {
				return err
			}
		}
		<-s.Context().Done() // it has no end of its own
		return nil
	}
	file, got := backUp(t, a, "-to", "11")
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, []uint64{2, 2, 4, 6}, a.asked)
	require.Contains(t, got.stderr, "[2, 11) of cluster "+archived)
	h, all := readExport(t, file)
	require.Equal(t, archived, h.Cluster)
	require.EqualValues(t, 2, h.First)
	require.Len(t, all, 5)
	require.Equal(t, replica.ExportBatch{FirstOffset: 2, Count: 2, Timestamp: 1000, Records: []byte{1, 'a', 2, 'b', 'c'}}, all[0])
	require.Equal(t, replica.ExportBatch{FirstOffset: 10, Count: 1, Timestamp: 1002, Records: []byte{1, 'a'}}, all[4], "cut at the end")
}

// An empty log has a backup, too.
func TestBackupOfNothing(t *testing.T) {
	a := &archivist{ends: func() error { return apierr.OutOfRange{Offset: math.MaxUint64, Lowest: 7, Next: 7} }}
	a.stream = func(_ *nodev1.FetchRequest, s nodev1.Node_FetchStreamServer) error {
		return s.Send(some(archived, 7, 0))
	}
	file, got := backUp(t, a)
	require.Equal(t, 0, got.code, got.stderr)
	h, all := readExport(t, file)
	require.EqualValues(t, 7, h.First)
	require.Empty(t, all)
}

// What is no whole backup leaves no file.
func TestBackupRefuses(t *testing.T) {
	sends := func(rs ...*nodev1.FetchResponse) func(*nodev1.FetchRequest, nodev1.Node_FetchStreamServer) error {
		return func(_ *nodev1.FetchRequest, s nodev1.Node_FetchStreamServer) error {
			for _, r := range rs {
				if err := s.Send(r); err != nil {
					return err
				}
			}
			return apierr.OutOfRange{Offset: 4, Lowest: 6, Next: 12} // retention was faster
		}
	}
	short := some(archived, 2, 1)
	short.Batches[0].Records = short.Batches[0].Records[:2]
	for name, tc := range map[string]struct {
		args   []string
		stream func(*nodev1.FetchRequest, nodev1.Node_FetchStreamServer) error
		says   string
	}{
		"an old node":          {nil, sends(some("", 2, 5)), "of a version that gives no backup"},
		"another cluster":      {nil, sends(some(archived, 2, 1), some("d1b2a060-8b5e-4a3e-9f1c-1f3a7d1f0c55", 4, 1)), "is of cluster d1b2a060"},
		"a gap":                {nil, sends(some(archived, 2, 1), some(archived, 6, 1)), "offset 6 where 4 must come next"},
		"records that are not": {nil, sends(short), "is cut short"},
		"deleted meanwhile":    {nil, sends(some(archived, 2, 1)), "offset 4 outside [6, 12)"},
		"below the log":        {[]string{"-from", "1"}, nil, "all from 1 on was asked for, but the log has [2, 12)"},
		"beyond the log":       {[]string{"-to", "13"}, nil, "[0, 13) was asked for, but the log has [2, 12)"},
		"backwards":            {[]string{"-from", "5", "-to", "4"}, nil, "[5, 4) was asked for, but the log has [2, 12)"},
	} {
		t.Run(name, func(t *testing.T) {
			file, got := backUp(t, &archivist{stream: tc.stream}, tc.args...)
			require.Equal(t, 1, got.code, got.stderr)
			require.Contains(t, got.stderr, tc.says)
			require.NoFileExists(t, file)
		})
	}
}

// A node that says nothing more is not waited for for ever.
func TestBackupOfASilentNode(t *testing.T) {
	a := &archivist{stream: func(_ *nodev1.FetchRequest, s nodev1.Node_FetchStreamServer) error {
		if err := s.Send(some(archived, 2, 1)); err != nil {
			return err
		}
		<-s.Context().Done()
		return nil
	}}
	file, got := backUp(t, a, "-timeout", "300ms")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "has said nothing for 300ms")
	require.NoFileExists(t, file)
}

// What was to come first is deleted while the command asks for it: it begins with what is
// there then, unless it was told where to begin.
func TestBackupBeginsWithWhatIsThere(t *testing.T) {
	for name, from := range map[string]string{"the lowest": "0", "an offset": "2"} {
		t.Run(name, func(t *testing.T) {
			a := &archivist{}
			a.stream = func(req *nodev1.FetchRequest, s nodev1.Node_FetchStreamServer) error {
				if req.GetOffset() == 2 {
					a.ends = func() error { return apierr.OutOfRange{Offset: math.MaxUint64, Lowest: 6, Next: 12} }
					return apierr.OutOfRange{Offset: 2, Lowest: 6, Next: 12}
				}
				return s.Send(some(archived, 6, 3))
			}
			file, got := backUp(t, a, "-from", from)
			if from != "0" {
				require.Equal(t, 1, got.code)
				require.NoFileExists(t, file)
				return
			}
			require.Equal(t, 0, got.code, got.stderr)
			h, all := readExport(t, file)
			require.EqualValues(t, 6, h.First)
			require.Len(t, all, 3)
		})
	}
}

// A node that answers and has no more is not waited for for ever either.
func TestBackupOfANodeThatStays(t *testing.T) {
	a := &archivist{stream: func(_ *nodev1.FetchRequest, s nodev1.Node_FetchStreamServer) error {
		for {
			if err := s.Send(some(archived, 2, 0)); err != nil {
				return err
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-s.Context().Done():
				return nil
			}
		}
	}}
	file, got := backUp(t, a, "-timeout", "300ms")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "the node has the records up to 12 only")
	require.NoFileExists(t, file)
}

// stuck takes what it is given after a while.
type stuck struct {
	bytes.Buffer
	once sync.Once
	d    time.Duration
}

func (s *stuck) Write(b []byte) (int, error) {
	s.once.Do(func() { time.Sleep(s.d) })
	return s.Buffer.Write(b)
}

// Who reads the backup may take his time: that is not the node's silence.
func TestBackupForASlowReader(t *testing.T) {
	const size = 300 << 10 // more than waits to be written
	record := append(binary.AppendUvarint(nil, size), make([]byte, size)...)
	a := &archivist{stream: func(_ *nodev1.FetchRequest, s nodev1.Node_FetchStreamServer) error {
		for off := range uint64(10) {
			r := &nodev1.FetchResponse{ClusterId: archived, Batches: []*nodev1.Batch{{FirstOffset: 2 + off, Count: 1, Timestamp: 1, Records: record}}}
			if err := s.Send(r); err != nil {
				return err
			}
		}
		<-s.Context().Done()
		return nil
	}}
	a.ends = end
	addr := serve(t, func(srv *grpc.Server) { nodev1.RegisterNodeServer(srv, a) })
	out, errs := &stuck{d: time.Second}, new(buffer)
	code := cli.Main(t.Context(), "logd", "1.2.3", commands(telemetry.ReadBuild("1.2.3")), cli.Env{Stdout: out, Stderr: errs},
		[]string{"backup", "-address", addr, "-timeout", "500ms"})
	require.Equal(t, 0, code, errs.String())
	require.Greater(t, out.Len(), 10*size)
}
