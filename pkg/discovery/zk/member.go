package zk

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// MemberPrefix is what the names of members begin with; ZooKeeper appends ten digits.
const MemberPrefix = "member_"

// Alive is the status of a member that serves.
const Alive = "ALIVE"

const (
	memberMost = 16 << 10 // bytes of a member; they have a hundred or two
	hostMost   = 253
)

// Endpoint is where something listens.
type Endpoint struct {
	Host string `json:"host"`
	Port int    `json:"port"`
}

// Member is one server of a serverset, in the JSON of com.twitter.common's ServerSets.
type Member struct {
	Service    Endpoint            `json:"serviceEndpoint"`
	Additional map[string]Endpoint `json:"additionalEndpoints"`
	Status     string              `json:"status"`
	Shard      *int                `json:"shard,omitempty"`
}

// NewMember is a live member at addr, host:port.
func NewMember(addr string) (Member, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return Member{}, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return Member{}, fmt.Errorf("address %s: %w", addr, err)
	}
	m := Member{Service: Endpoint{Host: host, Port: n}, Additional: map[string]Endpoint{}, Status: Alive}
	_, err = m.Addr()
	return m, err
}

// ParseMember reads a member as it stands in a znode.
func ParseMember(data []byte) (m Member, err error) {
	if len(data) > memberMost {
		return m, fmt.Errorf("%d bytes, and at most %d are read", len(data), memberMost)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, err
	}
	_, err = m.Addr()
	return m, err
}

// Data is what ParseMember reads.
func (m Member) Data() ([]byte, error) { return json.Marshal(m) }

// Addr is host:port of the service endpoint.
func (m Member) Addr() (string, error) {
	host, port := m.Service.Host, m.Service.Port
	switch {
	case host == "":
		return "", errors.New("serviceEndpoint has no host")
	case len(host) > hostMost || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("[]/", r) }):
		return "", fmt.Errorf("serviceEndpoint's host %.40q is none", host)
	case port < 1 || port > 65535:
		return "", fmt.Errorf("serviceEndpoint's port %d is none", port)
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}
