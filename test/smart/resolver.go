package smart

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

const scheme = "smart"

// How long a question may take, and the pause after one that failed: the library
// asks again only when a connection breaks, and there may be none.
const (
	askFor   = 2 * time.Second
	askAfter = 200 * time.Millisecond
)

// builder makes one resolver a connection.
type builder struct{ opt Options }

func (builder) Scheme() string { return scheme }

func (b builder) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	conn, err := grpc.NewClient("passthrough:///"+target.Endpoint(), grpc.WithTransportCredentials(b.opt.Ask), grpc.WithNoProxy())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &asker{cc: cc, conn: conn, wanted: make(chan struct{}, 1), cancel: cancel}
	if b.opt.AskOnRefusal {
		r.onRefusal = r
	}
	r.ResolveNow(resolver.ResolveNowOptions{})
	r.running.Go(func() { r.run(ctx) })
	return r, nil
}

// asker is a resolver that asks one server who the servers are.
type asker struct {
	cc        resolver.ClientConn
	conn      *grpc.ClientConn // to that server
	onRefusal *asker           // itself, if the picker is to call it
	wanted    chan struct{}    // capacity 1: there is a question to ask
	cancel    context.CancelFunc
	running   sync.WaitGroup // run
}

// ResolveNow implements resolver.Resolver; it does not wait for the answer.
func (r *asker) ResolveNow(resolver.ResolveNowOptions) {
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// Close implements resolver.Resolver.
func (r *asker) Close() {
	r.cancel()
	r.running.Wait()
	_ = r.conn.Close()
}

func (r *asker) run(ctx context.Context) {
	for {
		select {
		case <-r.wanted:
		case <-ctx.Done():
			return
		}
		if err := r.ask(ctx); err != nil && ctx.Err() == nil {
			r.cc.ReportError(err)
			timer := time.NewTimer(askAfter)
			select {
			case <-timer.C:
				r.ResolveNow(resolver.ResolveNowOptions{})
			case <-ctx.Done():
			}
			timer.Stop()
		}
	}
}

// about is what the picker learns of an address.
type about struct {
	leader bool
	refuse *asker // to be asked after a refusal; may be nil
}

type aboutKey struct{}

func (r *asker) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	resp, err := logv1.NewLogClient(r.conn).GetServers(ctx, &logv1.GetServersRequest{})
	if err != nil {
		return err
	}
	var addrs []resolver.Address
	for _, s := range resp.GetServers() {
		a := resolver.Address{
			Addr:       s.GetRpcAddr(),
			Attributes: attributes.New(aboutKey{}, about{s.GetIsLeader(), r.onRefusal}),
		}
		if !strings.HasPrefix(a.Addr, "unix:") {
			if host, _, err := net.SplitHostPort(a.Addr); err == nil {
				a.ServerName = host
			}
		}
		addrs = append(addrs, a)
	}
	// What the balancer thinks of it, an empty list for instance, it acts on itself.
	_ = r.cc.UpdateState(resolver.State{Addresses: addrs})
	return nil
}
