package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
)

func bootstrapForgetCommand() cli.Command {
	return cli.Command{
		Name:     "bootstrap forget",
		Synopsis: "Drop a promise to a cluster that never began",
		Args:     "<data dir>",
		Long: `Nodes that begin a cluster promise themselves to it, once. When one of them is lost
before it has, that cluster never comes to be, and the others wait for it for ever:
'logd members -admin' says so. Then stop all of them, run this on each, and start them
again: they begin another cluster.

It takes a stopped node without Raft state, and makes it a new node: its id changes, so
that no two clusters ever count on one node. A node that has state is in a cluster, and
is not touched. Make sure that no node of the promise has begun that cluster: what it
has is otherwise another cluster beside the one to come.`,
		Examples: "bootstrap forget /var/lib/logd",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			yes := fs.Bool("yes", false, "do not ask")
			format := cli.FormatFlag(fs)
			return func(_ context.Context, args []string) error {
				if *format == cli.JSON && !*yes {
					return cli.Usagef("-format json is not for a conversation: -yes is needed with it")
				}
				o, err := openOffline(args)
				if err != nil {
					return err
				}
				return errors.Join(forget(env, vfs.OS{}, args[0], o, *yes, *format), o.Close())
			}
		},
	}
}

// forgotten is what forget answers.
type forgotten struct {
	Cluster string   `json:"cluster_id"`
	Servers []string `json:"servers"` // node ids of the promise, this node's former one too
}

// forget drops the promise in the data directory dir of fsys, which o holds. A node that
// starts where this was interrupted finishes it.
func forget(env cli.Env, fsys vfs.FS, dir string, o *replica.Offline, yes bool, format cli.Format) error {
	store, err := bootstrap.Open(fsys, dir)
	if err != nil {
		return err
	}
	p, ok := store.Promised()
	if !ok {
		return fmt.Errorf("%s: %w", dir, bootstrap.ErrNoPromise)
	}
	if !yes {
		fmt.Fprintf(env.Stdout, "Promised to %s.\nType the cluster's uuid to forget it: ", p)
		line, err := bufio.NewReader(env.Stdin).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if strings.TrimSpace(line) != p.Cluster {
			return errors.New("nothing was changed: the answer was another (-yes does not ask)")
		}
	}
	switch err := o.Unbind(p.Cluster); {
	case errors.Is(err, replica.ErrHasState):
		return fmt.Errorf("%s is in cluster %s already, which has come to be: nothing was changed", dir, o.Cluster)
	case err != nil:
		return err
	}
	// Last: until it is gone, this can be done again.
	if err := store.Forget(); err != nil {
		return err
	}
	return format.Answer(env.Stdout, forgotten{p.Cluster, p.Servers},
		fmt.Sprintf("==> Forgot cluster %s. This is a new node now; do the same on the others of %s.\n", p.Cluster, strings.Join(p.Servers, ", ")))
}
