package authz_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/tlsconf"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

func methods() (all []string) {
	for _, f := range []protoreflect.FileDescriptor{logv1.File_log_v1_log_proto, nodev1.File_node_v1_node_proto} {
		s := f.Services().Get(0)
		for i := range s.Methods().Len() {
			all = append(all, "/"+string(s.FullName())+"/"+string(s.Methods().Get(i).Name()))
		}
	}
	return all
}

func role(r tlsconf.Role) authz.Caller { return authz.Caller{Role: string(r), Name: "x"} }

// through makes a proxy's caller.
func through(proxy, principal string) authz.Caller {
	return authz.Caller{Role: string(tlsconf.RoleProxy), Name: proxy, Principal: principal, Proxied: true}
}

func may(a *authz.Authorizer, c authz.Caller, method string) bool {
	_, err := a.Check(c, method)
	return err == nil
}

// Every method of ours is decided about; none by accident.
func TestEveryMethodHasARule(t *testing.T) {
	a := authz.ByRole()
	for _, m := range methods() {
		require.True(t, may(a, role(tlsconf.RoleAdmin), m) || may(a, role(tlsconf.RoleStorage), m), m)
		require.False(t, authz.Public(m), m)
	}
}

func TestRoles(t *testing.T) {
	a := authz.ByRole()
	for name, tc := range map[string]struct {
		role   tlsconf.Role
		method string
		want   bool
	}{
		"a client produces":                   {tlsconf.RoleClient, "/log.v1.Log/Produce", true},
		"a client consumes":                   {tlsconf.RoleClient, "/log.v1.Log/ConsumeStream", true},
		"a client appends":                    {tlsconf.RoleClient, "/node.v1.Node/Append", false},
		"a client watches the cluster":        {tlsconf.RoleClient, "/node.v1.Node/WatchCluster", false},
		"a proxy watches the cluster":         {tlsconf.RoleProxy, "/node.v1.Node/WatchCluster", true},
		"a proxy joins":                       {tlsconf.RoleProxy, "/node.v1.Node/Join", false},
		"a proxy promises":                    {tlsconf.RoleProxy, "/node.v1.Node/Promise", false},
		"a proxy removes a peer":              {tlsconf.RoleProxy, "/node.v1.Node/RemovePeer", false},
		"a proxy appends for nobody":          {tlsconf.RoleProxy, "/node.v1.Node/Append", false},
		"a node produces":                     {tlsconf.RoleStorage, "/log.v1.Log/Produce", false},
		"a node appends":                      {tlsconf.RoleStorage, "/node.v1.Node/Append", false},
		"a node joins":                        {tlsconf.RoleStorage, "/node.v1.Node/Join", true},
		"a node fetches to repair":            {tlsconf.RoleStorage, "/node.v1.Node/FetchEntries", true},
		"a node transfers leadership":         {tlsconf.RoleStorage, "/node.v1.Node/TransferLeadership", false},
		"an admin joins":                      {tlsconf.RoleAdmin, "/node.v1.Node/Join", false},
		"an admin produces":                   {tlsconf.RoleAdmin, "/log.v1.Log/Produce", true},
		"an admin removes a peer":             {tlsconf.RoleAdmin, "/node.v1.Node/RemovePeer", true},
		"a client asks for health":            {tlsconf.RoleClient, "/grpc.health.v1.Health/Check", true},
		"an admin calls what nobody has ever": {tlsconf.RoleAdmin, "/log.v1.Log/Compact", false},
		"no role":                             {"", "/log.v1.Log/Produce", false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, may(a, role(tc.role), tc.method)) })
	}
}

func TestProxySaysForWhom(t *testing.T) {
	a := authz.ByRole()
	for _, m := range []string{"/log.v1.Log/Produce", "/node.v1.Node/Append", "/node.v1.Node/FetchStream"} {
		require.False(t, may(a, role(tlsconf.RoleProxy), m), m)
		require.True(t, may(a, through("p1", "alice"), m), m)
	}
	for _, m := range []string{"/node.v1.Node/WatchCluster", "/log.v1.Log/GetServers", "/node.v1.Node/Offsets"} {
		require.True(t, may(a, role(tlsconf.RoleProxy), m), m)
	}
	for _, r := range []tlsconf.Role{tlsconf.RoleClient, tlsconf.RoleStorage, tlsconf.RoleAdmin} {
		for _, m := range []string{"/log.v1.Log/Produce", "/node.v1.Node/Stats", "/grpc.health.v1.Health/Check"} {
			c := role(r)
			c.Principal, c.Proxied = "x", true
			require.False(t, may(a, c, m), "%s speaks for itself by another's means: %s", r, m)
		}
	}
}

// What operates the cluster or makes it another is audited, and nothing that comes often.
func TestWhatChangesTheClusterIsAudited(t *testing.T) {
	audited := map[string]bool{
		"/node.v1.Node/Join": true, "/node.v1.Node/Promise": true,
		"/node.v1.Node/TransferLeadership": true, "/node.v1.Node/RemovePeer": true,
		"/node.v1.Node/ListKeys": true, "/node.v1.Node/InstallKey": true, "/node.v1.Node/UseKey": true, "/node.v1.Node/RemoveKey": true,
	}
	for _, m := range methods() {
		require.Equal(t, audited[m], authz.Audited(m), m)
	}
}
