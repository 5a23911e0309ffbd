package membership

import (
	"fmt"
	"strconv"
	"strings"
)

// Tags is what a member says about itself and may change while it runs.
type Tags struct {
	RPCAddr  string // host:port for others to dial; empty while not able to serve
	HasState bool
	Expect   int
	Draining bool
	Version  string
	Cluster  string // uuid; empty while in no cluster
}

// The keys on the wire. Short, because all tags of a member travel in 512 bytes
// with every change. Unknown ones are ignored, so that a newer member can say
// more.
const (
	tagRole     = "role"
	tagRPCAddr  = "rpc"
	tagState    = "st"
	tagExpect   = "exp"
	tagDraining = "dr"
	tagVersion  = "ver"
	tagCluster  = "id"
)

// TagsBytes is the limit of a member's encoded tags. Above it memberlist panics,
// so the size is checked before tags reach it.
const TagsBytes = 512

// TagsError reports tags that cannot be said, or were not understood.
type TagsError struct{ Reason string }

func (e *TagsError) Error() string { return "gossip tags: " + e.Reason }

// roomForTags fails when what changes while a member runs will not fit beside what
// stays as it is: found out only then, its draining could not be said, for one.
func roomForTags(role Role, t Tags) error {
	t.HasState, t.Draining = true, true
	if len(t.Cluster) < uuidBytes {
		t.Cluster = strings.Repeat("x", uuidBytes)
	}
	_, err := encodeTags(role, t)
	return err
}

// uuidBytes is how long a cluster's uuid is in Tags.
const uuidBytes = 36

// encodeTags leaves out what is zero.
func encodeTags(role Role, t Tags) (map[string]string, error) {
	if role != RoleStorage && role != RoleProxy {
		return nil, &TagsError{fmt.Sprintf("role %q is neither %s nor %s", role, RoleStorage, RoleProxy)}
	}
	if t.Expect < 0 {
		return nil, &TagsError{fmt.Sprintf("bootstrap_expect %d: negative", t.Expect)}
	}
	m := map[string]string{tagRole: string(role)}
	put := func(key, value string) {
		if value != "" {
			m[key] = value
		}
	}
	flag := func(key string, on bool) {
		if on {
			m[key] = "1"
		}
	}
	put(tagRPCAddr, t.RPCAddr)
	put(tagVersion, t.Version)
	put(tagCluster, t.Cluster)
	if t.Expect > 0 {
		put(tagExpect, strconv.Itoa(t.Expect))
	}
	flag(tagState, t.HasState)
	flag(tagDraining, t.Draining)
	// Serf: one magic byte, then msgpack: at most 5 bytes before the map and 5
	// before each string, fewer for short ones.
	size := 1 + 5
	for k, v := range m {
		size += 5 + len(k) + 5 + len(v)
	}
	if size >= TagsBytes {
		return nil, &TagsError{fmt.Sprintf("%d bytes, below %d wanted (RPC address %d, version %d)",
			size, TagsBytes, len(t.RPCAddr), len(t.Version))}
	}
	return m, nil
}

func decodeTags(m map[string]string) (Role, Tags, error) {
	role := Role(m[tagRole])
	if role != RoleStorage && role != RoleProxy {
		return "", Tags{}, &TagsError{fmt.Sprintf("role %q is neither %s nor %s", role, RoleStorage, RoleProxy)}
	}
	t := Tags{
		RPCAddr: m[tagRPCAddr], Version: m[tagVersion], Cluster: m[tagCluster],
		HasState: m[tagState] == "1", Draining: m[tagDraining] == "1",
	}
	if s := m[tagExpect]; s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return "", Tags{}, &TagsError{fmt.Sprintf("bootstrap_expect %q", s)}
		}
		t.Expect = n
	}
	return role, t, nil
}
