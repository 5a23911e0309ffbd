package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/uuid"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/replica"
)

func recoverCommand() cli.Command {
	return cli.Command{
		Name:     "recover",
		Synopsis: "Go on with one node when the majority is lost",
		Args:     "<data dir>",
		Long: `For a cluster that lost more than half of its voters and will not get them back.
It makes one stopped survivor the only node of a new cluster, which begins with
everything that node has; the others are then wiped and join it as new nodes.

What is lost: records that were acknowledged by a majority this node was not part
of. With several survivors take the one that has the most: the highest term of the
last entry, and among equal ones the highest index; -compare shows that.

The cluster gets a new uuid. So nodes of the old one that come back after all can
not talk to it, and proxies that follow the old one have to be restarted; but the
old nodes may then go on as the old cluster, and a client that reaches them does
not know. Make sure that they stay down, or wipe them.

It may be interrupted, and run again: until it is through, no node starts there.`,
		Examples: `recover -dry-run /var/lib/logd
recover -compare /mnt/node2/logd /var/lib/logd
recover -compare n2.json /var/lib/logd
recover -yes /var/lib/logd`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			yes := fs.Bool("yes", false, "do not ask")
			dry := fs.Bool("dry-run", false, "show what would be done, and change nothing")
			format := cli.FormatFlag(fs)
			var others listFlag
			fs.Var(&others, "compare", "`file|dir`: another survivor, as its data directory or what 'logd inspect list -format json' wrote.\nMay be repeated")
			return func(_ context.Context, args []string) error {
				if *format == cli.JSON && !*yes && !*dry {
					return cli.Usagef("-format json is not for a conversation: -dry-run or -yes is needed with it")
				}
				o, err := openOffline(args)
				if err != nil {
					return err
				}
				r := recovery{env: env, dir: args[0], o: o, yes: *yes, dry: *dry, format: *format}
				return errors.Join(r.run(others), o.Close())
			}
		},
	}
}

// listFlag is a flag that may be repeated.
type listFlag []string

func (l *listFlag) String() string     { return strings.Join(*l, ", ") }
func (l *listFlag) Set(s string) error { *l = append(*l, s); return nil }

type recovery struct {
	env      cli.Env
	dir      string
	o        *replica.Offline
	yes, dry bool
	format   cli.Format
}

// The shapes of -format json.
type (
	recoveryShown struct {
		Survivors []survivorShown `json:"survivors"` // this node first
		NodeID    string          `json:"node_id"`
		ClusterID string          `json:"cluster_id"` // new
		FormerID  string          `json:"former_cluster_id"`
		Recovered bool            `json:"recovered"` // false: with -dry-run
	}
	survivorShown struct {
		NodeID      string `json:"node_id"`
		DataDir     string `json:"data_dir"`
		ClusterID   string `json:"cluster_id"`
		LastTerm    uint64 `json:"last_term"`
		LastIndex   uint64 `json:"last_index"`
		CommitKnown uint64 `json:"commit_known_index"`
		NextOffset  uint64 `json:"next_offset"`
		Says        string `json:"says"` // has the most, of another cluster, damaged: why; or nothing
	}
)

func (r *recovery) run(compare []string) error {
	others, err := survivors(compare)
	if err != nil {
		return err
	}
	plan, err := r.o.PlanRecovery(uuid.NewString())
	if err != nil {
		return err
	}
	next, err := r.o.NextStart()
	if err != nil {
		return err
	}
	found, behind := r.compare(plan, next, others)
	shown := recoveryShown{found, plan.NodeID, plan.Cluster, plan.Former, !r.dry}
	if r.format == cli.JSON {
		if !r.dry {
			if err := r.o.Recover(plan); err != nil {
				return err
			}
		}
		return cli.WriteJSON(r.env.Stdout, shown)
	}
	if err := r.show(plan, found); err != nil {
		return err
	}
	switch {
	case r.dry:
		return nil
	case r.yes:
	case behind:
		fmt.Fprintf(r.env.Stdout, "\nAnother survivor has more than this one. ")
		fallthrough
	default:
		if err := r.confirm(plan.NodeID); err != nil {
			return err
		}
	}
	if err := r.o.Recover(plan); err != nil {
		return err
	}
	_, err = fmt.Fprintf(r.env.Stdout, "==> Recovered: %s is cluster %s now.\n    Start it. Then wipe the data directories of the other nodes, and start them: they join it. Restart the proxies.\n",
		plan.NodeID, plan.Cluster)
	return err
}

// survivors reads the others.
func survivors(compare []string) (others []inspected, err error) {
	for _, path := range compare {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		var d inspected
		if info.IsDir() {
			d, err = survivor(path)
		} else {
			var b []byte
			if b, err = os.ReadFile(path); err == nil {
				err = json.Unmarshal(b, &d)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("-compare %s: %w", path, err)
		}
		others = append(others, d)
	}
	return others, nil
}

func survivor(dir string) (inspected, error) {
	o, err := openOffline([]string{dir})
	if err != nil {
		return inspected{}, err
	}
	next, err := o.NextStart()
	d := listing(dir, o, next)
	return d, errors.Join(err, o.Close())
}

// compare says what each survivor has, this one first. behind: another has more.
func (r *recovery) compare(plan *replica.Task, next replica.NextStart, others []inspected) (found []survivorShown, behind bool) {
	self := listing(r.dir, r.o, next)
	best := self
	for _, d := range others {
		if d.NextStart.Refused == "" && d.Cluster == plan.Former && more(&d, &best) {
			best, behind = d, true
		}
	}
	for i, d := range append([]inspected{self}, others...) {
		says := ""
		switch {
		case d.NextStart.Refused != "":
			says = "damaged: " + d.NextStart.Refused
		case d.Cluster != plan.Former && i > 0:
			says = "of another cluster"
		case d.DataDir == best.DataDir && d.NodeID == best.NodeID:
			says = "has the most"
		}
		n := d.NextStart
		found = append(found, survivorShown{d.NodeID, d.DataDir, d.Cluster, n.LastTerm, n.Last, n.CommitKnown, n.Next, says})
	}
	return found, behind
}

// show says what there is and what would be done.
func (r *recovery) show(plan *replica.Task, found []survivorShown) error {
	rows := cli.NewRows("SURVIVOR", "CLUSTER", "LAST TERM", "LAST INDEX", "COMMIT KNOWN", "NEXT OFFSET", "")
	for i, s := range found {
		name := s.NodeID
		if name == "" {
			name = s.DataDir
		}
		if i == 0 {
			name += " (this one)"
		}
		rows.Add(name, s.ClusterID, s.LastTerm, s.LastIndex, s.CommitKnown, s.NextOffset, s.Says)
	}
	if err := rows.Write(r.env.Stdout); err != nil {
		return err
	}
	_, err := fmt.Fprintf(r.env.Stdout, `
%s becomes the only voter of cluster %s,
by entries %d and %d of term %d behind what it has. All of its entries count as
committed from then on. Records that other nodes acknowledged and this one has
not got are lost. The nodes of cluster %s
must not come back: wipe them.
`, plan.NodeID, plan.Cluster, plan.Index, plan.Index+1, plan.Term, plan.Former)
	return err
}

// more says whether a's log is more complete than b's, as Raft compares them.
func more(a, b *inspected) bool {
	x, y := a.NextStart, b.NextStart
	return x.LastTerm > y.LastTerm || x.LastTerm == y.LastTerm && x.Last > y.Last
}

// confirm asks for the node's id.
func (r *recovery) confirm(id string) error {
	fmt.Fprintf(r.env.Stdout, "\nType %s to go on: ", id)
	line, err := bufio.NewReader(r.env.Stdin).ReadString('\n')
	if strings.TrimSpace(line) != id {
		return errors.Join(errors.New("nothing was changed: the answer was another (-yes does not ask)"), ignoreEOF(err))
	}
	return nil
}

// ignoreEOF leaves what is worth telling of a read error.
func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
