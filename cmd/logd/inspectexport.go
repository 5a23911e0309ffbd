package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
)

func inspectExportCommand() cli.Command {
	return cli.Command{
		Name:     "inspect export",
		Synopsis: "Back up a stopped node's records to a file",
		Args:     "<data dir>",
		Long: `Writes the committed records of a stopped node, with their offsets, keys, headers
and times, to a file that 'logd inspect import' reads and that says itself whether
it is whole. Nothing in the data directory is changed. A node knows the log to be
committed up to some point and may lack what the others have beyond; how far it
went is said on stderr. It ends with 1, and without a usable file, when a record
in the range is damaged or not there.`,
		Examples: `inspect export -o records.logd /var/lib/logd
inspect export -from 1000 -to 2000 /var/lib/logd | zstd >part.zst`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			file := fs.String("o", "-", "`file` to write, which must not exist; - is stdout. Default: -")
			from := fs.Uint64("from", 0, "first `offset`; 0: the lowest there is. Default: 0")
			to := fs.Uint64("to", math.MaxUint64, "`offset` to end before. Default: as far as the node knows to be committed")
			return func(ctx context.Context, args []string) error {
				o, err := openOffline(args)
				if err != nil {
					return err
				}
				return errors.Join(inspectExport(ctx, env, o, *file, *from, *to), o.Close())
			}
		},
	}
}

func inspectExport(ctx context.Context, env cli.Env, o *replica.Offline, file string, from, to uint64) error {
	var x replica.Exported
	err := cli.MakeFile(env, file, func(w io.Writer) (err error) {
		meter := showEntries(env, "exporting")
		defer meter.Stop()
		x, err = o.Export(w, from, to, func(index, last uint64) error {
			meter.at(index, last)
			return context.Cause(ctx)
		})
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stderr, "==> Exported the records [%d, %d) of cluster %s in %d batches.\n"+
		"    This node knows the log to be committed up to entry %d; others may have more.\n", x.First, x.Next, o.Cluster, x.Batches, x.Commit)
	return err
}

func inspectImportCommand() cli.Command {
	return cli.Command{
		Name:     "inspect import",
		Synopsis: "Make a new node of an export: restore a backup",
		Args:     "<data dir>",
		Long: `Makes a data directory of a node that is a cluster of its own, with a new uuid, and
has the records of an export at the offsets they had. Other nodes then join it,
with empty data directories. -name must be the name in the certificate that the
node will have. What producers had sent is not part of an export: one that repeats
a batch from before appends it again. An export that is not whole and sound is
refused; an import that does not end well leaves a directory that no node starts
in, to be removed.`,
		Examples: `inspect import -i records.logd -name node1 /var/lib/logd
inspect import -name node1 /var/lib/logd <records.logd`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			file := fs.String("i", "-", "`file` to read; - is stdin. Default: -")
			name := fs.String("name", "", "`name` in the node's certificate")
			format := cli.FormatFlag(fs)
			return func(ctx context.Context, args []string) error {
				switch {
				case len(args) != 1:
					return cli.Usagef("exactly one data directory is needed, new or empty")
				case *name == "":
					return cli.Usagef("-name is needed: the name in the node's certificate")
				}
				return inspectImport(ctx, env, *file, *name, args[0], *format)
			}
		},
	}
}

type importedShown struct {
	DataDir string `json:"data_dir"`
	NodeID  string `json:"node_id"`
	Cluster string `json:"cluster_id"`
	First   uint64 `json:"first_offset"`
	Next    uint64 `json:"next_offset"`
}

func inspectImport(ctx context.Context, env cli.Env, file, name, dir string, format cli.Format) error {
	in := env.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		// A file can be read twice: nothing is made before it is known to be good.
		if _, _, err := replica.CheckExport(f); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		in = f
	}
	var at atomic.Uint64
	progress := cli.ShowProgress(env, func() string { return fmt.Sprintf("importing: up to offset %d", at.Load()) })
	im := replica.Import{FS: vfs.OS{}, Home: dir, Dir: raftDir, Name: name, Cluster: uuid.NewString(), Progress: func(next uint64) error {
		at.Store(next)
		return context.Cause(ctx)
	}}
	made, err := im.Run(in)
	progress.Stop()
	if err != nil {
		return err
	}
	s := importedShown{DataDir: dir, NodeID: made.NodeID, Cluster: im.Cluster, First: made.First, Next: made.Next}
	if format == cli.JSON {
		return cli.WriteJSON(env.Stdout, s)
	}
	return cli.WriteFacts(env.Stdout, "Imported", []cli.Fact{
		{Name: "Data Dir", Value: s.DataDir},
		{Name: "Node", Value: s.NodeID},
		{Name: "Cluster", Value: s.Cluster + " (new)"},
		{Name: "Records", Value: fmt.Sprintf("[%d, %d)", s.First, s.Next)},
	})
}
