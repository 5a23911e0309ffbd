package proxy

import (
	"context"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/logd-io/logd/pkg/internal/events"
)

// clusterFile is the file in data_dir with the uuid of the cluster that was served
// last, in a line.
const clusterFile = "cluster"

// servedBefore answers which cluster a proxy on dir served last; empty if that
// cannot be told.
func servedBefore(dir string) string {
	if dir == "" {
		return ""
	}
	body, err := os.ReadFile(filepath.Join(dir, clusterFile))
	if err != nil || len(body) != 37 {
		return ""
	}
	id, err := uuid.ParseBytes(body[:36])
	if err != nil {
		return ""
	}
	return id.String()
}

// noteCluster waits for the cluster to be found and keeps its uuid for the next start.
// Within one life a proxy keeps to one cluster; a restart is how an operator lets it
// serve another. But processes are restarted for other reasons, too, so it is told.
func (p *Proxy) noteCluster(ctx context.Context) error {
	t := p.holder.Load()
	for ; t.ClusterID == ""; t = p.holder.Load() {
		select {
		case <-t.Superseded():
		case <-ctx.Done():
			return nil
		}
	}
	before := servedBefore(p.cfg.DataDir)
	if p.cfg.DataDir == "" || before == t.ClusterID {
		return nil
	}
	if before != "" {
		p.former.Store(&before)
		p.log.Warn("this is another cluster than before the restart: it has other records, and offsets and positions of the former mean nothing in it",
			"cluster", t.ClusterID, "former", before)
		p.events.Addf("another_cluster", events.Warning, "",
			"this is another cluster than before the restart: then it was %s", before)
	}
	// After it was told: who is killed in between tells it again.
	path := filepath.Join(p.cfg.DataDir, clusterFile)
	err := os.WriteFile(path+".tmp", []byte(t.ClusterID+"\n"), 0o600)
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		p.log.Warn("the cluster is not kept for the next start", "err", err)
	}
	return nil
}

// formerCluster is the cluster that was served before the last restart, if it was
// another; else empty.
func (p *Proxy) formerCluster() string {
	if id := p.former.Load(); id != nil {
		return *id
	}
	return ""
}
