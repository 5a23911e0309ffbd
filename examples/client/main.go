// Command client is a naive client of the log: it knows the address of a proxy and
// the service's generated stub, and nothing of nodes, leaders or failovers. It
// appends numbered records, reads them back as they come, and counts.
//
//	acked 1234  read 1234  repeated 0  longest wait 12ms
//
// A line a second says how far it is. Told to end, it has what is under way finish,
// and fails if a record is missing, there twice, or out of turn.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

func main() { os.Exit(run()) }

func run() int {
	address := flag.String("address", or(os.Getenv("LOGD_ADDR"), "127.0.0.1:8410"), "of a proxy. LOGD_ADDR")
	producers := flag.Int("producers", 8, "records under way at a time")
	rate := flag.Int("rate", 200, "records a second")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if *producers < 1 || *rate < 1 {
		fmt.Fprintln(os.Stderr, "client: -producers and -rate: at least 1")
		return 2
	}
	if err := load(ctx, *address, *producers, *rate); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		return 1
	}
	return 0
}

func or(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

// transport is mutual TLS where LOGD_CACERT, LOGD_CERT and LOGD_KEY name the files
// for it; without them, plaintext, which a proxy speaks on its own machine only.
func transport() (credentials.TransportCredentials, error) {
	file := os.Getenv("LOGD_CACERT")
	if file == "" {
		return insecure.NewCredentials(), nil
	}
	ca, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s: no certificate in it", file)
	}
	cert, err := tls.LoadX509KeyPair(os.Getenv("LOGD_CERT"), os.Getenv("LOGD_KEY"))
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{cert}}), nil
}

// loader makes the load and counts.
type loader struct {
	log logv1.LogClient
	run string // tells its records from those of others, and of its lives before

	acked, repeated atomic.Uint64
	longest         atomic.Int64 // nanoseconds from a record's first attempt to its outcome

	read, twice, late atomic.Uint64 // of the records read
}

// finish is how long what is under way may take at the end.
const finish = 30 * time.Second

func load(ctx context.Context, address string, producers, rate int) error {
	creds, err := transport()
	if err != nil {
		return err
	}
	// A proxy that is away is back in a moment; grpc alone would look for it every two
	// minutes in the end.
	soon := backoff.DefaultConfig
	soon.MaxDelay = time.Second
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon, MinConnectTimeout: 5 * time.Second}))
	if err != nil {
		return err
	}
	defer conn.Close()
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	l := &loader{log: logv1.NewLogClient(conn), run: hex.EncodeToString(id[:])}

	// life outlives ctx, whose end is only the wish to stop.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	from, err := l.beginning(ctx)
	if err != nil {
		return err
	}
	tailed := make(chan struct{})
	go func() { // ended by end, and waited for below
		defer close(tailed)
		l.tail(life, from, producers)
	}()
	var producing sync.WaitGroup
	for p := range producers {
		producing.Go(func() { l.produce(ctx, life, p, time.Duration(producers)*time.Second/time.Duration(rate)) })
	}

	progress := time.NewTicker(time.Second)
	defer progress.Stop()
	for ctx.Err() == nil {
		select {
		case <-progress.C:
			fmt.Println(l)
		case <-ctx.Done():
		}
	}
	time.AfterFunc(finish, end)
	producing.Wait()
	for life.Err() == nil && l.read.Load() < l.acked.Load() {
		select {
		case <-progress.C:
		case <-life.Done():
		}
	}
	end()
	<-tailed
	missing := l.acked.Load() - min(l.read.Load(), l.acked.Load())
	fmt.Printf("%v  lost %d  twice %d  out of turn %d\n", l, missing, l.twice.Load(), l.late.Load())
	if missing > 0 || l.twice.Load() > 0 || l.late.Load() > 0 {
		return fmt.Errorf("the log of run %s is not what was acknowledged", l.run)
	}
	return nil
}

func (l *loader) String() string {
	return fmt.Sprintf("acked %d  read %d  repeated %d  longest wait %v",
		l.acked.Load(), l.read.Load(), l.repeated.Load(), time.Duration(l.longest.Load()).Round(time.Millisecond))
}

// again is the pause before what failed is tried again.
const again = 200 * time.Millisecond

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// beginning is the end of the log as it is now.
func (l *loader) beginning(ctx context.Context) (uint64, error) {
	for said := false; ; said = true {
		res, err := l.log.GetOffsets(ctx, &logv1.GetOffsetsRequest{})
		if err == nil {
			return res.GetNext(), nil
		}
		if !said {
			fmt.Fprintln(os.Stderr, "client: waiting for the log:", err)
		}
		if !pause(ctx, again) {
			return 0, err
		}
	}
}

// produce appends one record after the other until ctx ends. A proxy hides what
// happens behind it; what is left is the proxy's own end. A call that fails then is
// repeated under the id it had, and is in the log once all the same.
func (l *loader) produce(ctx, life context.Context, p int, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		value := fmt.Sprintf("%s %d %d", l.run, p, i)
		call := metadata.AppendToOutgoingContext(life, "logd-request-id", strings.ReplaceAll(value, " ", "-"))
		for began := time.Now(); ; l.repeated.Add(1) {
			_, err := l.log.Produce(call, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(value)}})
			for waited := int64(time.Since(began)); ; {
				if most := l.longest.Load(); waited <= most || l.longest.CompareAndSwap(most, waited) {
					break
				}
			}
			if err == nil {
				l.acked.Add(1)
				break
			}
			if !pause(life, again) {
				fmt.Fprintf(os.Stderr, "client: %s has no outcome: %v\n", value, err)
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// tail reads the log on from an offset, and goes by what each producer's next
// record has to be.
func (l *loader) tail(ctx context.Context, from uint64, producers int) {
	next := make([]int, producers)
	for ctx.Err() == nil {
		stream, err := l.log.ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: from})
		for err == nil {
			var res *logv1.ConsumeResponse
			if res, err = stream.Recv(); err != nil {
				break
			}
			if got := res.GetRecord().GetOffset(); got != from {
				fmt.Fprintf(os.Stderr, "client: offset %d came where %d should\n", got, from)
				l.late.Add(1)
			}
			from = res.GetRecord().GetOffset() + 1
			var run string
			var p, i int
			if _, err := fmt.Sscanf(string(res.GetRecord().GetValue()), "%s %d %d", &run, &p, &i); err != nil || run != l.run || p >= producers {
				continue // somebody else's
			}
			switch {
			case i < next[p]:
				l.twice.Add(1)
			case i > next[p]:
				l.late.Add(1)
				next[p] = i + 1
				l.read.Add(1)
			default:
				next[p]++
				l.read.Add(1)
			}
		}
		pause(ctx, again)
	}
}
