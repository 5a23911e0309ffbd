package membership

import (
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/serf/serf"
)

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
		return nil
	}
	_, tags, err := decodeTags(m.Tags)
	if err != nil {
		return fmt.Errorf("member %s: %w", m.Name, err)
	}
	own := d.g.wanted.Load().Cluster
	if own != "" && tags.Cluster != "" && own != tags.Cluster {
		return fmt.Errorf("member %s is in cluster %s, we are in %s", m.Name, tags.Cluster, own)
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
