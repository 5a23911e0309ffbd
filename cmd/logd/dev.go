package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/devcluster"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
)

func devCommand(build telemetry.Build) cli.Command {
	return cli.Command{
		Name:     "dev",
		Synopsis: "Run a cluster and a proxy in one process",
		Long: `Three nodes and a proxy, with certificates and a policy (policy.csv in -data-dir)
made on the spot. On a terminal, keys kill the leader and bring it back; without one
it runs until SIGTERM.

Node i binds 127.0.0.i with the default ports, and the proxy 127.0.0.1:8410. Where
127.0.0.2 does not exist, -port-base puts everything on 127.0.0.1.`,
		Examples: `dev
dev -nodes 5 -data-dir ./dev`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			opt := devcluster.Options{Version: build.Version}
			fs.StringVar(&opt.Dir, "data-dir", "", "`directory` to keep data and certificates in. Default: a new one, removed at the end")
			fs.IntVar(&opt.Nodes, "nodes", 3, "`number` of nodes. Default: 3")
			fs.IntVar(&opt.PortBase, "port-base", 0, "first `port`, on 127.0.0.1, ten for the proxy and for each node")
			level := fs.String("log-level", "off", "`trace|debug|info|warn|error|off`. Default: off, since losing nodes is the point")
			return func(ctx context.Context, _ []string) error {
				if opt.Nodes < 1 {
					return cli.Usagef("-nodes %d: at least 1", opt.Nodes)
				}
				// A terminal that is closed ends it too, and nothing is left behind.
				ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
				defer stop()
				if env.Interactive {
					// A raw terminal does not go to the start of the line by itself.
					env.Stdout, env.Stderr = returning{env.Stdout}, returning{env.Stderr}
				}
				logger, err := telemetry.NewLogger(telemetry.LogOptions{Name: "dev", Level: *level, Format: "text", Output: env.Stderr})
				if err != nil {
					return &cli.UsageError{Err: err}
				}
				opt.Logger = logger
				return dev(ctx, env, opt)
			}
		},
	}
}

// devReady is how long a cluster on one machine may take to elect a leader.
const devReady = time.Minute

func dev(ctx context.Context, env cli.Env, opt devcluster.Options) (err error) {
	fmt.Fprintf(env.Stdout, "==> Starting %d nodes and a proxy\n", opt.Nodes)
	c, err := devcluster.Start(opt)
	if err != nil {
		return err
	}
	defer func() {
		fmt.Fprintln(env.Stdout, "==> Stopping")
		err = errors.Join(err, c.Close())
	}()
	proxy, err := cli.NewAdmin(c.ProxyAdmin())
	if err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, devReady)
	err = proxy.WaitReady(ready)
	cancel()
	switch {
	case ctx.Err() != nil:
		return nil // interrupted before it was up
	case err != nil:
		return err
	}
	if err := describe(env.Stdout, c, opt.Dir); err != nil {
		return err
	}
	keys, restore, err := keyboard(env)
	if err != nil {
		return err
	}
	defer restore()
	d := &console{out: env.Stdout, cluster: c}
	return d.run(ctx, keys)
}

// describe tells what runs and how to try it.
func describe(w io.Writer, c *devcluster.Cluster, dir string) error {
	facts := []cli.Fact{
		{Name: "Proxy", Value: c.Proxy() + " (plaintext, for clients)"},
		{Name: "Proxy admin", Value: "http://" + c.ProxyAdmin()},
	}
	for _, n := range c.Nodes() {
		facts = append(facts, cli.Fact{Name: n.Name, Value: n.Addr() + " (mTLS)"})
	}
	if dir != "" {
		facts = append(facts, cli.Fact{Name: "Data", Value: dir})
	}
	if err := cli.WriteFacts(w, "logd dev running!", facts); err != nil {
		return err
	}
	address := ""
	if c.Proxy() != cli.Sidecar {
		address = " -address " + c.Proxy()
	}
	admin := c.Files(tlsconf.RoleAdmin)
	_, err := fmt.Fprintf(w, `
  echo hello | logd produce%[1]s
  logd consume%[1]s -follow -from earliest
  grpcurl -plaintext -d '{"record": {"value": "aGVsbG8="}}' %[2]s log.v1.Log/Produce
  grpcurl -plaintext -d '{"offset": 0}' %[2]s log.v1.Log/Consume
  curl http://%[3]s/readyz
  logd members -address %[4]s -ca-cert %[5]s -cert %[6]s -key %[7]s

`, address, c.Proxy(), c.ProxyAdmin(), c.Nodes()[0].Addr(), admin.CA, admin.Cert, admin.Key)
	return err
}

// keyboard hands over single keys where there is a terminal; nil where not.
func keyboard(env cli.Env) (keys <-chan byte, restore func(), err error) {
	stdin, ok := env.Stdin.(*os.File)
	if !env.Interactive || !ok {
		return nil, func() {}, nil
	}
	fd := int(stdin.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	return readKeys(stdin), func() { _ = term.Restore(fd, state) }, nil
}

// readKeys reads until the input ends. A read of a terminal cannot be ended, so
// nobody waits for it: it goes with the process.
func readKeys(r io.Reader) <-chan byte {
	keys := make(chan byte) // unbuffered: a key is read when the one before it is done
	go func() {
		defer close(keys)
		b := make([]byte, 1)
		for {
			n, err := r.Read(b)
			if n == 1 {
				keys <- b[0]
			}
			if err != nil {
				return
			}
		}
	}()
	return keys
}

// returning writes a carriage return before each newline.
type returning struct{ w io.Writer }

func (r returning) Write(p []byte) (int, error) {
	if _, err := r.w.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}

const keysHelp = "k kill the leader   r revive and heal   p partition the leader   q quit"

// console does what the keys say.
type console struct {
	out     io.Writer
	cluster *devcluster.Cluster
}

const (
	ctrlC = 3
	ctrlD = 4
)

// run ends with q, or when ctx does. Without keys it waits for ctx.
func (d *console) run(ctx context.Context, keys <-chan byte) error {
	if keys != nil {
		fmt.Fprintln(d.out, keysHelp)
	}
	for {
		select {
		case key, ok := <-keys:
			if !ok {
				keys = nil // the terminal is gone; a signal will follow
				continue
			}
			switch key {
			case 'k':
				d.kill()
			case 'r':
				d.revive()
			case 'p':
				d.partition()
			case 'q', ctrlC, ctrlD:
				return nil
			default:
				fmt.Fprintln(d.out, keysHelp)
			}
		case err := <-d.cluster.Failed():
			fmt.Fprintf(d.out, "==> %v\n", err)
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *console) kill() {
	leader := d.cluster.Leader()
	if leader == nil {
		fmt.Fprintln(d.out, "==> There is no leader to kill: r revives")
		return
	}
	if err := leader.Kill(); err != nil {
		fmt.Fprintf(d.out, "==> Killing %s: %v\n", leader.Name, err)
		return
	}
	fmt.Fprintf(d.out, "==> Killed %s, which led; %s\n", leader.Name, d.standing())
}

func (d *console) partition() {
	leader := d.cluster.Leader()
	if leader == nil {
		fmt.Fprintln(d.out, "==> There is no leader to cut off: r heals")
		return
	}
	leader.Partition()
	fmt.Fprintf(d.out, "==> Cut %s, which led, off from the others; %s\n", leader.Name, d.standing())
}

func (d *console) revive() {
	for _, n := range d.cluster.Nodes() {
		if n.Partitioned() {
			n.Heal()
			fmt.Fprintf(d.out, "==> Healed %s\n", n.Name)
		}
		if n.Running() {
			continue
		}
		if err := n.Revive(); err != nil {
			fmt.Fprintf(d.out, "==> Reviving %s: %v\n", n.Name, err)
			continue
		}
		fmt.Fprintf(d.out, "==> Revived %s\n", n.Name)
	}
	fmt.Fprintf(d.out, "==> %s\n", d.standing())
}

// standing says which nodes can take part.
func (d *console) standing() string {
	var up []string
	for _, n := range d.cluster.Nodes() {
		if n.Running() && !n.Partitioned() {
			up = append(up, n.Name)
		}
	}
	text := fmt.Sprintf("%d of %d nodes are up", len(up), len(d.cluster.Nodes()))
	if len(up)*2 <= len(d.cluster.Nodes()) {
		return text + ", which is no majority: produces are held, then fail"
	}
	return text + " (" + strings.Join(up, ", ") + ")"
}
