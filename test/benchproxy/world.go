package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// world is a cluster that is up.
type world struct {
	*harness.Cluster
	proxy     *harness.Proxy
	leader    *harness.Node
	followers []*harness.Node
	dir       string
	closers   []func() error // what targets opened, closed in reverse
}

func (w *world) close() error {
	var errs []error
	for i := len(w.closers) - 1; i >= 0; i-- {
		errs = append(errs, w.closers[i]())
	}
	return errors.Join(errs...)
}

// onlyMutualTLS makes sure that the leader answers nobody without a certificate.
// Whatever gets answers from it through a proxy then proves that the proxy does
// mutual TLS.
func (w *world) onlyMutualTLS(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	plain, err := harness.Naive(w.leader.RPC)
	if err != nil {
		return err
	}
	defer plain.Close()
	if _, err := logv1.NewLogClient(plain).GetOffsets(ctx, &logv1.GetOffsetsRequest{}); err == nil {
		return errors.New("the leader answers without TLS, so nothing would be measured as it runs in earnest")
	}
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}}
	conn, err := d.DialContext(ctx, "tcp", w.leader.RPC)
	if err != nil {
		return fmt.Errorf("TLS without a certificate: %w", err)
	}
	defer conn.Close()
	// In TLS 1.3 the client learns with its first read that it was refused.
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	var alert *net.OpError
	if _, err := conn.Read(make([]byte, 1)); !errors.As(err, &alert) || alert.Op != "remote error" {
		return fmt.Errorf("the leader did not refuse a client without a certificate: %w", err)
	}
	return nil
}

// next is the offset that the leader, to which way leads, gives next.
func (w *world) next(ctx context.Context, way *target) (uint64, error) {
	resp, err := logv1.NewLogClient(way.conns[0]).GetOffsets(ctx, &logv1.GetOffsetsRequest{})
	return resp.GetNext(), err
}

// readers is how many streams of records node n has been asked for.
func (w *world) readers(ctx context.Context, n *harness.Node) (float64, error) {
	text, err := harness.Get(ctx, "http://"+n.Admin+"/metrics")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || !strings.HasPrefix(name, "grpc_server_started_total{") {
			continue
		}
		for _, method := range []string{"ConsumeStream", "Fetch", "FetchStream"} {
			if strings.Contains(name, fmt.Sprintf("grpc_method=%q", method)) {
				v, err := strconv.ParseFloat(value, 64)
				if err != nil {
					return 0, fmt.Errorf("metric %s: %w", name, err)
				}
				sum += v
			}
		}
	}
	return sum, nil
}
