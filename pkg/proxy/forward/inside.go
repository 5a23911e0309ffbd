package forward

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// Read reads one record for the proxy itself, as principal, the way a client's Consume
// goes. It is of no session: it neither waits for what clients have seen, nor does what
// it sees bind them.
func (f *Forwarder) Read(ctx context.Context, principal string, offset uint64) (*logv1.Record, error) {
	ctx, cancel := f.bounded(ctx)
	defer cancel()
	fetch := &nodev1.FetchRequest{Offset: offset, MaxBytes: 1, WaitMs: uint32(waitAtEnd.Milliseconds())}
	rec := new(logv1.Record)
	err := f.reader("").each(upstream(ctx, principal), func(ctx context.Context, up route.Upstream, _ bool) error {
		var m message
		if err := up.Conn().Invoke(ctx, nodev1.Node_Fetch_FullMethodName, fetch, &m, grpc.ForceCodecV2(f.codec)); err != nil {
			return err
		}
		defer m.free()
		b, err := recordAt(m.bytes(), offset)
		if err != nil {
			return err
		}
		if err := proto.Unmarshal(b, rec); err != nil {
			return fmt.Errorf("record %d: %w", offset, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	rec.Offset = offset
	return rec, nil
}
