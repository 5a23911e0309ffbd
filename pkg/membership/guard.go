package membership

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/serf/serf"
)

// ForeignError refuses a member of another cluster.
type ForeignError struct{ Member, Cluster, Own string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("member %s is in cluster %s, this node's data is of cluster %s", e.Member, e.Cluster, e.Own)
}

// Refused is the newest member that was kept out for its cluster, nil when there
// was none.
func (g *Gossip) Refused() error {
	if err := g.refused.Load(); err != nil {
		return err
	}
	return nil
}

// guard keeps members out of our list whose tags are not ours, and those of
// another cluster that happens to have the same name and key. Serf asks it for
// every alive message, so also for members that come by way of others.
type guard struct{ g *Gossip }

func (d guard) NotifyMerge(members []*serf.Member) error {
	// Serf also asks about a whole exchange. Refusing that for one member would
	// keep out the others; each of them comes alone, too.
	if len(members) != 1 {
		return nil
	}
	m := members[0]
	if m.Name == d.g.id {
		return d.g.claim(Claim{
			Addr:    net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port))),
			RPCAddr: m.Tags[tagRPCAddr],
		})
	}
	_, tags, err := decodeTags(m.Tags)
	if err != nil {
		return fmt.Errorf("member %s: %w", m.Name, err)
	}
	own := d.g.wanted.Load().Cluster
	if own != "" && tags.Cluster != "" && own != tags.Cluster {
		err := &ForeignError{Member: m.Name, Cluster: tags.Cluster, Own: own}
		if old := d.g.refused.Swap(err); old == nil || *old != *err {
			d.g.log.Warn("a member of another cluster is kept out", "err", err)
		}
		return err
	}
	return nil
}

// reconnectTimeout forgets proxies that are gone soon: they come under a new id,
// and there can be many. Storage nodes keep Serf's configured time.
type reconnectTimeout struct{}

const proxyForgotten = 10 * time.Minute

func (reconnectTimeout) ReconnectTimeout(m *serf.Member, otherwise time.Duration) time.Duration {
	if Role(m.Tags[tagRole]) == RoleProxy {
		return min(otherwise, proxyForgotten)
	}
	return otherwise
}

// resolve turns host:port into an IP address, which is all memberlist takes. An
// empty host is every address of the machine.
func resolve(what, addr string) (*net.TCPAddr, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", what, addr, err)
	}
	if a.IP == nil {
		a.IP = net.IPv4zero
	}
	return a, nil
}

type hostPort struct {
	host string // an IP address; empty: the bound one
	port int
}

// advertised returns what others are told to use. Port 0 is the bound one.
func advertised(addr string, bound int) (hostPort, error) {
	if addr == "" {
		return hostPort{port: bound}, nil
	}
	a, err := resolve("advertise address", addr)
	if err != nil {
		return hostPort{}, err
	}
	if a.IP.IsUnspecified() {
		return hostPort{}, fmt.Errorf("advertise address %q: nobody can reach %s", addr, a.IP)
	}
	if a.Port == 0 {
		a.Port = bound
	}
	return hostPort{host: a.IP.String(), port: a.Port}, nil
}
