package replica

import (
	"context"
	"errors"
	"reflect"

	"github.com/hashicorp/raft"
)

// endWith makes a future of hashicorp/raft end with raft.ErrRaftShutdown when
// done is closed. By itself a future that Raft had not answered when it shut
// down never ends, and its waiter with it. The library has the channel for this
// (deferError.ShutdownCh, exported in an unexported struct) but sets it on some
// futures only. It must be called before Error, which alone reads the field.
//
// It reports false for a future that is an answer already: nothing was enqueued.
func endWith(f raft.Future, done chan struct{}) bool {
	v := reflect.ValueOf(f)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return false
	}
	field := v.Elem().FieldByName("ShutdownCh")
	if !field.IsValid() || !field.CanSet() || field.Type() != reflect.TypeOf(done) {
		return false
	}
	field.Set(reflect.ValueOf(done))
	return true
}

// await waits for a future until ctx ends or Raft is gone. What ctx's end leaves
// behind has an unknown outcome.
func await(ctx context.Context, f raft.Future, raftGone <-chan struct{}) error {
	end := make(chan struct{})
	if !endWith(f, end) {
		return f.Error()
	}
	answered := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-ctx.Done():
		case <-raftGone:
		case <-answered:
			return
		}
		close(end)
	}()
	err := f.Error()
	close(answered)
	<-watched
	if errors.Is(err, raft.ErrRaftShutdown) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// notSent says whether err means that Raft never took the entry.
func notSent(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrEnqueueTimeout)
}
