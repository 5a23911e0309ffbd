package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

// DefaultAddress is where a sidecar listens.
const DefaultAddress = "127.0.0.1:8410"

// Client is one connection. It is safe for concurrent use.
type Client struct {
	conn *grpc.ClientConn
	log  logv1.LogClient
}

// Target turns host:port, or a unix socket as unix:///path or /path, into what
// grpc.NewClient takes.
func Target(address string) (string, error) {
	switch {
	case address == "":
		return "", errors.New("no address")
	case strings.HasPrefix(address, "/"):
		return "unix://" + address, nil
	case strings.HasPrefix(address, "unix:///"):
		return address, nil
	case strings.Contains(address, "://"):
		return "", fmt.Errorf("address %q: host:port or unix:///path", address)
	case !strings.Contains(address, ":"):
		return "", fmt.Errorf("address %q: no port", address)
	}
	return "dns:///" + address, nil
}

// Dial makes a client of the sidecar or node at address. conf nil means
// plaintext, which only a proxy on this machine speaks. It does not connect: the
// first call does. More options come after those set here.
func Dial(address string, conf *tls.Config, opts ...grpc.DialOption) (*Client, error) {
	target, err := Target(address)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if conf != nil {
		creds = credentials.NewTLS(conf)
	}
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(), // the way to a log never leads through an HTTP proxy
		grpc.WithUserAgent("logd-client"),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return &Client{conn: conn, log: logv1.NewLogClient(conn)}, nil
}

// Conn is the connection, for other services of the same server.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

// Close ends the connection and everything on it.
func (c *Client) Close() error { return c.conn.Close() }

// ReadLinearizable gives the record at offset, and misses none that was acknowledged
// to anybody before the call: an offset it finds outside the log (OFFSET_OUT_OF_RANGE)
// is outside it. It costs the cluster a round trip to the leader and a majority.
func (c *Client) ReadLinearizable(ctx context.Context, offset uint64) (*logv1.Record, error) {
	res, err := c.log.Consume(ctx, &logv1.ConsumeRequest{Offset: offset, Linearizable: true})
	if err == nil && res.GetRecord() == nil {
		err = errors.New("the server sent no record")
	}
	return res.GetRecord(), err
}

// Produce appends one record and returns its offset. The record is not changed.
func (c *Client) Produce(ctx context.Context, record *logv1.Record) (uint64, error) {
	res, err := c.log.Produce(ctx, &logv1.ProduceRequest{Record: record})
	return res.GetOffset(), err
}

// Servers are the servers a client may talk to.
func (c *Client) Servers(ctx context.Context) ([]*logv1.Server, error) {
	res, err := c.log.GetServers(ctx, &logv1.GetServersRequest{})
	return res.GetServers(), err
}

// Offsets is the readable range of the log: [Lowest, Next).
type Offsets struct{ Lowest, Next uint64 }

// Offsets asks where the log begins and ends.
func (c *Client) Offsets(ctx context.Context) (Offsets, error) {
	res, err := c.log.GetOffsets(ctx, &logv1.GetOffsetsRequest{})
	return Offsets{Lowest: res.GetLowest(), Next: res.GetNext()}, err
}

// OffsetAt is the first offset whose batch was appended at or after t, or the
// next offset when there is none.
func (c *Client) OffsetAt(ctx context.Context, t time.Time) (uint64, error) {
	ns := t.UnixNano()
	res, err := c.log.GetOffsets(ctx, &logv1.GetOffsetsRequest{Time: &ns})
	if err != nil {
		return 0, err
	}
	if res.AtTime == nil {
		return 0, errors.New("the server does not tell offsets by time")
	}
	return res.GetAtTime(), nil
}
