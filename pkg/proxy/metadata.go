package proxy

import (
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/logd-io/logd/pkg/proxy/forward"
)

// principalKey is the metadata by which a proxy tells a node whose call it is. A
// node believes a proxy, so nothing a client sends may stand in it.
const principalKey = "logd-original-principal"

// clusterKey is the metadata by which a proxy tells a node which cluster it takes it
// for one of.
const clusterKey = "logd-cluster"

// clientKeys are the keys of ours that clients may send. Any other is a proxy's to
// say, also one that a newer node knows and we do not.
var clientKeys = map[string]bool{
	"logd-request-id": true, "logd-session": true, "logd-routing-key": true, "logd-position": true,
}

// hopKeys are about one connection and not about the call (RFC 9110, 7.6.1, and the
// gRPC protocol's own), so they end here; each hop says its own.
var hopKeys = map[string]bool{
	"connection": true, "keep-alive": true, "proxy-authenticate": true, "proxy-authorization": true,
	"proxy-connection": true, "te": true, "trailer": true, "transfer-encoding": true, "upgrade": true,
	"host": true, "content-type": true, "user-agent": true,
	"grpc-accept-encoding": true, "grpc-encoding": true, "grpc-internal-encoding-request": true,
}

// onward is what a node gets of a client's metadata, whose call it is, and of which
// cluster the node is to be. The name is encoded, since the node decodes it: as it is,
// a '%' in one client's name would make it another's.
func onward(in metadata.MD, principal, cluster string) metadata.MD {
	out := make(metadata.MD, len(in)+2)
	for k, v := range in {
		if !hopKeys[k] && !strings.HasPrefix(k, ":") && (!strings.HasPrefix(k, "logd-") || clientKeys[k]) {
			out[k] = v
		}
	}
	out.Set(principalKey, forward.HeaderSafe(principal))
	if cluster != "" {
		out.Set(clusterKey, cluster)
	}
	return out
}

// back is what a client gets of a node's metadata. It answers md itself when that
// has nothing to take out.
func back(md metadata.MD) metadata.MD {
	for k := range md {
		if hopKeys[k] || k == principalKey {
			out := md.Copy()
			for k := range md {
				if hopKeys[k] || k == principalKey {
					delete(out, k)
				}
			}
			return out
		}
	}
	return md
}
