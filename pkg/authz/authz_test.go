package authz_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/tlsconf"
)

func methods() (all []string) {
	for _, f := range []protoreflect.FileDescriptor{logv1.File_log_v1_log_proto, nodev1.File_node_v1_node_proto} {
		s := f.Services().Get(0)
		for i := range s.Methods().Len() {
			all = append(all, "/"+string(s.FullName())+"/"+string(s.Methods().Get(i).Name()))
		}
	}
	return all
}

// Every method of ours is decided about; none by accident.
func TestEveryMethodHasARule(t *testing.T) {
	for _, m := range methods() {
		require.True(t, authz.Allowed(string(tlsconf.RoleAdmin), m) || authz.Allowed(string(tlsconf.RoleStorage), m), m)
		require.False(t, authz.Open(m), m)
	}
}

func TestRoles(t *testing.T) {
	for name, tc := range map[string]struct {
		role   tlsconf.Role
		method string
		want   bool
	}{
		"a client produces":                   {tlsconf.RoleClient, "/log.v1.Log/Produce", true},
		"a client appends":                    {tlsconf.RoleClient, "/node.v1.Node/Append", false},
		"a client watches the cluster":        {tlsconf.RoleClient, "/node.v1.Node/WatchCluster", false},
		"a proxy joins":                       {tlsconf.RoleProxy, "/node.v1.Node/Join", false},
		"a proxy promises":                    {tlsconf.RoleProxy, "/node.v1.Node/Promise", false},
		"a proxy removes a peer":              {tlsconf.RoleProxy, "/node.v1.Node/RemovePeer", false},
		"a node produces":                     {tlsconf.RoleStorage, "/log.v1.Log/Produce", false},
		"a node transfers leadership":         {tlsconf.RoleStorage, "/node.v1.Node/TransferLeadership", false},
		"an admin joins":                      {tlsconf.RoleAdmin, "/node.v1.Node/Join", false},
		"an admin removes a peer":             {tlsconf.RoleAdmin, "/node.v1.Node/RemovePeer", true},
		"a client asks for health":            {tlsconf.RoleClient, "/grpc.health.v1.Health/Check", true},
		"an admin calls what nobody has ever": {tlsconf.RoleAdmin, "/log.v1.Log/Compact", false},
		"no role":                             {"", "/log.v1.Log/Produce", false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, authz.Allowed(string(tc.role), tc.method)) })
	}
}

func TestProxySaysForWhom(t *testing.T) {
	for _, m := range []string{"/log.v1.Log/Produce", "/node.v1.Node/Append", "/node.v1.Node/FetchStream"} {
		require.True(t, authz.NeedsPrincipal(m), m)
	}
	for _, m := range []string{"/node.v1.Node/WatchCluster", "/log.v1.Log/GetServers", "/log.v1.Log/Compact"} {
		require.False(t, authz.NeedsPrincipal(m), m)
	}
}
