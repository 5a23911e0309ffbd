package harness

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

// Stats asks a node how it stands.
func (c *Cluster) Stats(ctx context.Context, n *Node) (*nodev1.StatsResponse, error) {
	conn, err := c.Dial("admin", n)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return nodev1.NewNodeClient(conn).Stats(ctx, &nodev1.StatsRequest{})
}

// ReadNode reads [0, next) from one node, straight, waiting for what it has not
// got yet.
func (c *Cluster) ReadNode(ctx context.Context, n *Node, next uint64) ([]*logv1.Record, error) {
	conn, err := c.Dial("client", n)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return ReadTo(ctx, conn, 0, next)
}

// Same compares two logs record by record.
func Same(a, b []*logv1.Record) error {
	for i := range min(len(a), len(b)) {
		if proto.Equal(a[i], b[i]) {
			continue
		}
		if bytes.Equal(a[i].GetValue(), b[i].GetValue()) {
			return fmt.Errorf("the records at offset %d differ in more than their value: %v and %v", i, a[i], b[i])
		}
		return fmt.Errorf("the values at offset %d differ: %.40q and %.40q", i, a[i].GetValue(), b[i].GetValue())
	}
	if len(a) != len(b) {
		return fmt.Errorf("one has %d records, the other %d", len(a), len(b))
	}
	return nil
}
