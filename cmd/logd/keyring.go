package main

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/logd-io/logd/internal/cli"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/membership"
)

// needs is what every keyring command says of how it reaches the cluster.
const needs = `It asks a node, which asks all members of gossip; any node will do, one change
at a time. It needs a certificate of role admin.`

// keyring is a command that makes one call and shows the keys as they are then.
func keyring(fs *flag.FlagSet, env cli.Env, args int, call func(context.Context, nodev1.NodeClient, []string) (*nodev1.Keyring, error)) cli.Action {
	connect := cli.ConnectFlags(fs, env, cli.Node)
	format := cli.FormatFlag(fs)
	return func(ctx context.Context, given []string) error {
		if len(given) != args {
			return cli.Usagef("exactly one argument is needed")
		}
		ctx, cancel := context.WithTimeout(ctx, connect.Timeout)
		defer cancel()
		c, err := connect.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		ring, err := call(ctx, nodev1.NewNodeClient(c.Conn()), given)
		if err != nil {
			return withoutTLS(connect, err)
		}
		return showKeyring(env.Stdout, ring, *format)
	}
}

// shownKey is a gossip key as -format json writes it.
type shownKey struct {
	ID      string `json:"id"`
	Has     uint32 `json:"members_with_key"`   // members that understand it
	Speaks  uint32 `json:"members_encrypting"` // members that encrypt with it
	Members uint32 `json:"members"`            // that are alive
}

func showKeyring(w io.Writer, ring *nodev1.Keyring, format cli.Format) error {
	shown := make([]shownKey, 0, len(ring.GetKeys()))
	for _, k := range ring.GetKeys() {
		shown = append(shown, shownKey{ID: k.GetId(), Has: k.GetHas(), Speaks: k.GetSpeaks(), Members: ring.GetMembers()})
	}
	if format == cli.JSON {
		return cli.WriteJSON(w, shown)
	}
	rows := cli.NewRows("KEY", "MEMBERS WITH IT", "MEMBERS ENCRYPTING WITH IT")
	for _, k := range shown {
		rows.Add(k.ID, of(k.Has, k.Members), of(k.Speaks, k.Members))
	}
	if err := rows.Write(w); err != nil {
		return err
	}
	if n := ring.GetMembers() - ring.GetAnswered(); n > 0 {
		fmt.Fprintf(w, "==> %d of %d members have not answered\n", n, ring.GetMembers())
	}
	if down := ring.GetDown(); len(down) > 0 {
		fmt.Fprintf(w, "==> Down, with the keys they had: %s\n", strings.Join(down, ", "))
	}
	if len(shown) > 1 {
		fmt.Fprint(w, "==> A change is under way. Nodes keep their keys; a proxy starts with those of its\n"+
			"    configuration: put both keys into its key_file now, the one in use first\n")
	}
	return nil
}

func of(n, all uint32) string { return fmt.Sprintf("%d of %d", n, all) }

func keyringListCommand() cli.Command {
	return cli.Command{
		Name:     "keyring list",
		Synopsis: "List the gossip keys and who has them",
		Long: `Shows the id of each gossip key (the beginning of its SHA-256, never the key), how
many members have it and how many encrypt with it.
` + needs,
		Examples: "keyring list -address node1:8400",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			return keyring(fs, env, 0, func(ctx context.Context, c nodev1.NodeClient, _ []string) (*nodev1.Keyring, error) {
				return c.ListKeys(ctx, &nodev1.ListKeysRequest{})
			})
		},
	}
}

func keyringInstallCommand() cli.Command {
	return cli.Command{
		Name:     "keyring install",
		Synopsis: "Give all members another gossip key",
		Args:     "<key file>",
		Long: `Gives all members the key in the file ("-": standard input), as keygen makes it. They
understand it from then on, and go on encrypting with the one they have. Again, it gives
it to members that have not got it. Nodes keep it in their data directory. A proxy keeps
nothing: before it is started again, its key_file needs the new key as well.
` + needs,
		Examples: "keyring install -address node1:8400 new.key",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			return keyring(fs, env, 1, func(ctx context.Context, c nodev1.NodeClient, args []string) (*nodev1.Keyring, error) {
				key, err := readGossipKey(env, args[0])
				if err != nil {
					return nil, err
				}
				return c.InstallKey(ctx, &nodev1.InstallKeyRequest{Key: key})
			})
		},
	}
}

func readGossipKey(env cli.Env, file string) ([]byte, error) {
	in := env.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	const most = 4 << 10 // far more than a key
	text, err := io.ReadAll(io.LimitReader(in, most))
	if err != nil {
		return nil, err
	}
	key, err := membership.ParseKey(string(text))
	if err == nil && len(key) != membership.KeyBytes {
		err = fmt.Errorf("%d bytes; %d wanted, make one with keygen", len(key), membership.KeyBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// gossipKeyID is the id that arg is, or that of the key in the file it names.
func gossipKeyID(env cli.Env, arg string) (string, error) {
	if _, err := hex.DecodeString(arg); err == nil && len(arg) == len(membership.KeyID(nil)) {
		return arg, nil
	}
	key, err := readGossipKey(env, arg)
	if err != nil {
		return "", err
	}
	return membership.KeyID(key), nil
}

const forceUsage = "go on although storage nodes are down; they need the keys in their configuration, and no gossip.keyring, before they start"

func keyringUseCommand() cli.Command {
	return cli.Command{
		Name:     "keyring use",
		Synopsis: "Have all members encrypt with a gossip key",
		Args:     "<key file or id>",
		Long: `Has all members encrypt with the key in the file, or of an id as list shows it. It is
refused while a member that is alive, proxies too, has not got the key, or a node is down.
` + needs,
		Examples: "keyring use -address node1:8400 new.key",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			force := fs.Bool("force", false, forceUsage)
			return keyring(fs, env, 1, func(ctx context.Context, c nodev1.NodeClient, args []string) (*nodev1.Keyring, error) {
				id, err := gossipKeyID(env, args[0])
				if err != nil {
					return nil, err
				}
				return c.UseKey(ctx, &nodev1.UseKeyRequest{Id: id, Force: *force})
			})
		},
	}
}

func keyringRemoveCommand() cli.Command {
	return cli.Command{
		Name:     "keyring remove",
		Synopsis: "Have all members forget a gossip key",
		Args:     "<key file or id>",
		Long: `Has all members forget the key in the file, or of an id as list shows it. It is refused
while a member encrypts with it, or a node is down. Who has no other key is cut off.
` + needs,
		Examples: "keyring remove -address node1:8400 old.key",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			force := fs.Bool("force", false, forceUsage)
			return keyring(fs, env, 1, func(ctx context.Context, c nodev1.NodeClient, args []string) (*nodev1.Keyring, error) {
				id, err := gossipKeyID(env, args[0])
				if err != nil {
					return nil, err
				}
				return c.RemoveKey(ctx, &nodev1.RemoveKeyRequest{Id: id, Force: *force})
			})
		},
	}
}
