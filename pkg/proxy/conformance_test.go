package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// plays are what methods of the node do that the conformance table calls.
var plays = map[string]func(*node, grpc.ServerStream) error{
	"/test.Play/Echo": func(_ *node, ss grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(ss.Context())
		mine := metadata.MD{}
		for k, v := range md {
			if strings.HasPrefix(k, "x-") {
				mine[k] = v
			}
		}
		if err := ss.SetHeader(mine); err != nil {
			return err
		}
		ss.SetTrailer(metadata.Pairs("t-one", "1", "t-two", "a", "t-two", "b", "t-raw-bin", "\x00\x01\xfe\xff"))
		return echoAll(ss)
	},
	"/test.Play/HeaderFirst": func(_ *node, ss grpc.ServerStream) error {
		if err := ss.SendHeader(metadata.Pairs("early", "yes", "early-bin", "\x00")); err != nil {
			return err
		}
		return echoAll(ss)
	},
	"/test.Play/HeaderOnly": func(_ *node, ss grpc.ServerStream) error {
		if err := ss.SendHeader(metadata.Pairs("early", "yes")); err != nil {
			return err
		}
		ss.SetTrailer(metadata.Pairs("late", "yes"))
		return status.Error(codes.NotFound, "a header, no message, and this")
	},
	// Ends before anything is read, with the code that was asked for.
	"/test.Play/Fail": func(_ *node, ss grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(ss.Context())
		var code codes.Code
		if _, err := fmt.Sscan(md["x-code"][0], &code); err != nil {
			return err
		}
		ss.SetTrailer(metadata.Pairs("late", "yes", "grpc-retry-pushback-ms", "7"))
		st, err := status.New(code, "100% \u00fcber\nnext").WithDetails(
			&errdetails.ErrorInfo{Reason: "WHY", Domain: "test", Metadata: map[string]string{"k": "v"}},
			&errdetails.LocalizedMessage{Locale: "de", Message: "nein"})
		if err != nil {
			return err
		}
		return st.Err()
	},
	// Counts until the client has closed its half.
	"/test.Play/Count": func(_ *node, ss grpc.ServerStream) error {
		for n := 0; ; n++ {
			var m wrapperspb.StringValue
			switch err := ss.RecvMsg(&m); {
			case errors.Is(err, io.EOF):
				return ss.SendMsg(text(fmt.Sprint(n)))
			case err != nil:
				return err
			}
		}
	},
	// Sends 100 after the client has closed its half, and then refuses.
	"/test.Play/After": func(_ *node, ss grpc.ServerStream) error {
		var m wrapperspb.StringValue
		for err := error(nil); !errors.Is(err, io.EOF); err = ss.RecvMsg(&m) {
			if err != nil {
				return err
			}
		}
		for i := range 100 {
			if err := ss.SendMsg(text(fmt.Sprint(i))); err != nil {
				return err
			}
		}
		return status.Error(codes.Aborted, "after 100")
	},
	// Ends well after one message, however many there are.
	"/test.Play/Enough": func(_ *node, ss grpc.ServerStream) error {
		var m wrapperspb.StringValue
		if err := ss.RecvMsg(&m); err != nil {
			return err
		}
		return ss.SendMsg(text("enough"))
	},
	// Answers with as many bytes as asked for.
	"/test.Play/Big": func(_ *node, ss grpc.ServerStream) error {
		var m wrapperspb.StringValue
		if err := ss.RecvMsg(&m); err != nil {
			return err
		}
		var n int
		if _, err := fmt.Sscan(m.Value, &n); err != nil {
			return err
		}
		return ss.SendMsg(wrapperspb.Bytes(make([]byte, n)))
	},
	// Waits for its end, and tells why it came.
	"/test.Play/Wait": func(n *node, ss grpc.ServerStream) error {
		if err := ss.SendHeader(nil); err != nil {
			return err
		}
		<-ss.Context().Done()
		n.told <- ss.Context().Err()
		return ss.Context().Err()
	},
	// Says things that are about its own hop.
	"/test.Play/Hops": func(_ *node, ss grpc.ServerStream) error {
		md := metadata.Pairs("x-mine", "kept", "proxy-authenticate", "x", "logd-original-principal", "x")
		ss.SetTrailer(md)
		if err := ss.SetHeader(md); err != nil {
			return err
		}
		return ss.SendMsg(text(""))
	},
	// Sends for ever.
	"/test.Play/Flood": func(_ *node, ss grpc.ServerStream) error {
		m := wrapperspb.Bytes(make([]byte, 16<<10))
		for {
			if err := ss.SendMsg(m); err != nil {
				return err
			}
		}
	},
	"/test.Play/Deadline": func(_ *node, ss grpc.ServerStream) error {
		dl, ok := ss.Context().Deadline()
		if !ok {
			return ss.SendMsg(text("none"))
		}
		return ss.SendMsg(text(fmt.Sprint(int(time.Until(dl).Hours() + 0.5))))
	},
}

func echoAll(ss grpc.ServerStream) error {
	for {
		var m wrapperspb.StringValue
		switch err := ss.RecvMsg(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := ss.SendMsg(&m); err != nil {
			return err
		}
	}
}

// outcome is what a client sees of one call.
type outcome struct {
	Header, Trailer map[string][]string // our own keys of them; Header nil: there was none
	Got             []string            // messages
	Code            codes.Code
	Message         string
	Details         []string
	Compressed      string // how the answer's messages were compressed
}

// sight notes what a client's connection tells of its only call.
type sight struct{ compression atomic.Value }

func (s *sight) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (s *sight) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (s *sight) HandleConn(context.Context, stats.ConnStats)                       {}
func (s *sight) HandleRPC(_ context.Context, e stats.RPCStats) {
	if h, ok := e.(*stats.InHeader); ok {
		s.compression.Store(h.Compression)
	}
}

func own(md metadata.MD) map[string][]string {
	if md == nil {
		return nil
	}
	m := map[string][]string{}
	for k, v := range md {
		switch k {
		case "content-type", "grpc-accept-encoding":
		default:
			m[k] = v
		}
	}
	return m
}

func (o *outcome) ends(s grpc.ClientStream, err error) {
	if !errors.Is(err, io.EOF) {
		st := status.Convert(err)
		o.Code, o.Message = st.Code(), st.Message()
		for _, d := range st.Details() {
			o.Details = append(o.Details, fmt.Sprintf("%T %v", d, d))
		}
	}
	if s != nil {
		md, _ := s.Header()
		o.Header, o.Trailer = own(md), own(s.Trailer())
	}
}

// exchange sends messages, closes the half, and takes what comes.
func exchange(method string, sent []proto.Message, opts ...grpc.CallOption) func(context.Context, *grpc.ClientConn) outcome {
	return func(ctx context.Context, cc *grpc.ClientConn) (o outcome) {
		s, err := cc.NewStream(ctx, bidi, method, opts...)
		if err != nil {
			o.ends(nil, err)
			return o
		}
		for _, m := range sent {
			if s.SendMsg(m) != nil {
				break // the reason is in what comes
			}
		}
		_ = s.CloseSend()
		o.takes(s)
		return o
	}
}

func (o *outcome) takes(s grpc.ClientStream) {
	for {
		var m wrapperspb.StringValue
		if err := s.RecvMsg(&m); err != nil {
			o.ends(s, err)
			return
		}
		got := m.Value
		if len(got) > 100 {
			got = fmt.Sprintf("%d bytes", len(got))
		}
		o.Got = append(o.Got, got)
	}
}

func texts(all ...string) (msgs []proto.Message) {
	for _, s := range all {
		msgs = append(msgs, text(s))
	}
	return msgs
}

func with(pairs ...string) func(context.Context) context.Context {
	return func(ctx context.Context) context.Context { return metadata.AppendToOutgoingContext(ctx, pairs...) }
}

// A passed-through call is to its client what it is without a proxy.
func TestPassedThroughIsAsDirect(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	r := run(t, conf(t, ca, n))
	r.isReady(t)
	asProxy := credentials.NewTLS(ca.Source(t, tlsconf.RoleProxy, "px").Client(tlsconf.ALPNgRPC, tlsconf.RoleStorage, "n1"))
	ways := map[string]func(*testing.T, grpc.DialOption) *grpc.ClientConn{
		"direct":  func(t *testing.T, o grpc.DialOption) *grpc.ClientConn { return dial(t, n.addr, asProxy, o) },
		"through": func(t *testing.T, o grpc.DialOption) *grpc.ClientConn { return dial(t, r.Addr(), nil, o) },
	}
	for _, s := range situations() {
		t.Run(s.name, func(t *testing.T) {
			seen := map[string]outcome{}
			for _, way := range slices.Sorted(maps.Keys(ways)) {
				ctx, cancel := context.WithCancel(context.Background()) // without a deadline, which would be passed on
				hangs := time.AfterFunc(bound, cancel)
				if s.md != nil {
					ctx = s.md(ctx)
				}
				saw := new(sight)
				o := s.do(ctx, ways[way](t, grpc.WithStatsHandler(saw)))
				hangs.Stop()
				cancel()
				o.Compressed, _ = saw.compression.Load().(string)
				s.ok(t, n, o)
				if s.refused {
					o.Trailer = nil
				}
				seen[way] = o
			}
			require.Equal(t, seen["direct"], seen["through"])
		})
	}
}

// broken is protobuf that writes nonsense.
type broken struct{}

func (broken) Name() string { return "proto" }
func (broken) Marshal(any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer{0xff, 0xff, 0xff}}, nil
}
func (broken) Unmarshal(b mem.BufferSlice, v any) error {
	return encoding.GetCodecV2("proto").Unmarshal(b, v)
}

// heard is why the call that waited for its end ended.
func (n *node) heard(t *testing.T) error {
	t.Helper()
	select {
	case err := <-n.told:
		return err
	case <-time.After(bound):
		t.Fatal("the node was not told")
		return nil
	}
}
