package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
)

const (
	soloID   = "bench.00000001"
	soloUUID = "00000000-0000-4000-8000-000000000001"
)

// solo is a cluster of one node: the storage of a node with all that a node
// keeps, checkpoints, votes and the offset index.
type solo struct {
	*replica.Replica
	cancel context.CancelFunc
	ended  chan error // capacity 1: what Run returned
}

// openSolo opens the node in dir, a new one or one that was there.
func openSolo(fsys vfs.FS, dir string) (*solo, error) {
	r, err := replica.Open(replica.Config{
		ID: soloID, FS: fsys, Dir: dir,
		Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("there is no other node") },
	})
	if err != nil {
		return nil, err
	}
	return &solo{Replica: r}, nil
}

// lead runs the node until it leads.
func (s *solo) lead(ctx context.Context) error {
	run, cancel := context.WithCancel(context.Background())
	s.cancel, s.ended = cancel, make(chan error, 1)
	go func() { s.ended <- s.Run(run) }()
	if !s.HasState() {
		if err := s.Bootstrap(ctx, soloUUID, []string{soloID}); err != nil {
			return err
		}
	}
	for {
		changes := s.Changes()
		if s.View().IsLeader {
			return nil
		}
		select {
		case <-changes:
		case err := <-s.ended:
			s.ended <- err
			return fmt.Errorf("the node ended: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close stops the node.
func (s *solo) Close() error {
	var err error
	if s.cancel != nil {
		s.cancel()
		err = <-s.ended
	}
	return errors.Join(err, s.Replica.Close())
}

// batch frames n records of that size.
func batch(n, size int) replica.Batch {
	b := replica.Batch{Count: uint32(n), Timestamp: time.Now().UnixNano()}
	for _, rec := range records(n, size) {
		b.Records = binary.AppendUvarint(b.Records, uint64(len(rec)))
		b.Records = append(b.Records, rec...)
	}
	return b
}

// produce appends batches until their records have so many bytes. inFlight is
// how many are submitted and not yet decided: those that wait share an entry.
func (s *solo) produce(ctx context.Context, b replica.Batch, inFlight int, total int64) error {
	bytes := int64(len(b.Records))
	var waiting []*replica.Pending
	for done := int64(0); done < total || len(waiting) > 0; {
		if done < total && len(waiting) < inFlight {
			p, err := s.Submit(b)
			if err != nil {
				return err
			}
			waiting = append(waiting, p)
			done += bytes
			continue
		}
		if _, err := waiting[0].Wait(ctx); err != nil {
			return err
		}
		waiting = waiting[1:]
	}
	return nil
}
