package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// maxSnapshotBytes is what Serf's snapshot of some thirty thousand members takes.
	// Ours is far smaller; files that Serf wrote are read too.
	maxSnapshotBytes = 8 << 20
	// maxSnapshotLine is more than an id of ours and an address take.
	maxSnapshotLine = 512
	// maxRemembered is how many members are asked after a restart at most.
	maxRemembered = 64
	// snapshotPace is how often the file is written at most.
	snapshotPace = time.Second
)

// openSnapshot tells the addresses of the members that the file names, the newest
// last, but for own, the address of this member: under another id it once was
// ourselves. Damage is logged and left out, since the file holds nothing but hints;
// an error is a file that cannot be written at all.
func openSnapshot(path, own string, logger hclog.Logger) (remembered []string, err error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("gossip snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err := io.ReadAll(io.LimitReader(f, maxSnapshotBytes+1))
	if err == nil && len(text) > maxSnapshotBytes {
		err = fmt.Errorf("more than %d bytes", maxSnapshotBytes)
	}
	if err != nil {
		logger.Warn("the gossip snapshot is forgotten; members are found by retry_join alone", "file", path, "err", err)
		return nil, f.Truncate(0)
	}
	remembered, bad := readSnapshot(text, own)
	if bad > 0 {
		logger.Warn("the gossip snapshot was damaged or cut short; going on with the rest of it",
			"file", path, "lines_left_out", bad, "members", len(remembered))
	}
	return remembered, nil
}

// keepSnapshot writes the file when members have changed. It is our own, and not
// Serf's: that one keeps in memory what it would write until the next change, for
// hours in a calm cluster, and a node that is killed then remembers nobody.
func (g *Gossip) keepSnapshot(ctx context.Context) {
	if g.snapshot == "" {
		return
	}
	said, told := "", ""
	write := func() {
		text := g.snapshotText()
		if text == said {
			return
		}
		err := writeSnapshot(g.snapshot, text)
		switch {
		case err == nil:
			said, told = text, ""
		case err.Error() != told:
			told = err.Error()
			g.log.Warn("who is a member is not kept for the next start", "err", err)
		}
	}
	defer write() // what came during the last pause
	pace := time.NewTimer(0)
	defer pace.Stop()
	for {
		changed := g.Changes()
		write()
		pace.Reset(snapshotPace)
		if !waitFor(ctx, g, changed) || !waitFor(ctx, g, pace.C) {
			return
		}
	}
}

// waitFor is false when everything ends before c has something.
func waitFor[T any](ctx context.Context, g *Gossip, c <-chan T) bool {
	select {
	case <-c:
		return true
	case <-g.closing:
	case <-ctx.Done():
	}
	return false
}

// snapshotText is the members that have not left, storage nodes first, and while we
// know nobody those that we were told at the start.
func (g *Gossip) snapshotText() string {
	var lines []string
	others := false
	for _, role := range []Role{RoleStorage, RoleProxy} {
		for _, m := range g.Members() {
			if m.Role == role && m.State != Left && len(lines) < maxRemembered {
				lines = append(lines, "alive: "+m.ID+" "+m.GossipAddr+"\n")
				others = others || m.ID != g.id
			}
		}
	}
	if !others {
		for i, addr := range g.recalled {
			lines = append(lines, fmt.Sprintf("alive: once.%d %s\n", i, addr))
		}
	}
	return strings.Join(lines, "")
}

// writeSnapshot replaces the file in one step.
func writeSnapshot(path, text string) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// readSnapshot takes the addresses out of the lines, but for own.
func readSnapshot(text []byte, own string) (addrs []string, bad int) {
	type place struct{ name, addr string }
	var seen []place
	for line := range bytes.Lines(text) {
		whole := bytes.TrimSuffix(line, []byte("\n"))
		name, addr, ok := snapshotLine(string(whole))
		switch {
		case !ok || len(whole) == len(line):
			bad++
		case addr != "" && addr != own:
			seen = slices.DeleteFunc(seen, func(p place) bool { return p.name == name || p.addr == addr })
			if len(seen) == maxRemembered {
				seen = slices.Delete(seen, 0, 1)
			}
			seen = append(seen, place{name, addr})
		}
	}
	for _, p := range seen {
		addrs = append(addrs, p.addr)
	}
	return addrs, bad
}

// snapshotLine understands a line as we or Serf write it. Only one about a member
// that is alive has a name and an address.
func snapshotLine(line string) (name, addr string, ok bool) {
	if len(line) > maxSnapshotLine {
		return "", "", false
	}
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "alive:":
		name, addr, _ = strings.Cut(rest, " ")
		_, err := netip.ParseAddrPort(addr)
		return name, addr, err == nil && printable(name)
	case "not-alive:":
		return "", "", printable(rest)
	case "clock:", "event-clock:", "query-clock:":
		_, err := strconv.ParseUint(rest, 10, 64)
		return "", "", err == nil
	case "leave":
		return "", "", rest == ""
	}
	return "", "", false
}

// printable tells whether s may be a member's id.
func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
