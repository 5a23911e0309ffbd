package authz_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/authz"
)

// bookModel and bookPolicy are the files of "Distributed Services with Go", as
// they stand there.
const (
	bookModel = `# Request definition
[request_definition]
r = sub, obj, act

# Policy definition
[policy_definition]
p = sub, obj, act

# Policy effect
[policy_effect]
e = some(where (p.eft == allow))

# Matchers
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
`
	bookPolicy = "p, root, *, produce\np, root, *, consume\n"
)

const (
	produce = "/log.v1.Log/Produce"
	consume = "/log.v1.Log/ConsumeStream"
)

// files is a policy in a folder, with a model unless that is empty.
type files struct {
	authz.Files
	t *testing.T
}

func write(t *testing.T, model, policy string) files {
	t.Helper()
	dir := t.TempDir()
	f := files{authz.Files{Policy: filepath.Join(dir, "policy.csv")}, t}
	if model != "" {
		f.Model = filepath.Join(dir, "model.conf")
		require.NoError(t, os.WriteFile(f.Model, []byte(model), 0o600))
	}
	f.policy(policy)
	return f
}

func (f files) policy(text string) {
	f.t.Helper()
	require.NoError(f.t, os.WriteFile(f.Policy, []byte(text), 0o600))
}

func open(t *testing.T, model, policy string) *authz.Authorizer {
	t.Helper()
	a, err := authz.Open(authz.Options{Files: write(t, model, policy).Files})
	require.NoError(t, err)
	return a
}

func named(role, name string) authz.Caller { return authz.Caller{Role: role, Name: name} }

func TestTheBooksFilesWorkUnchanged(t *testing.T) {
	for name, model := range map[string]string{"with its model": bookModel, "with ours": ""} {
		t.Run(name, func(t *testing.T) {
			a := open(t, model, bookPolicy)
			for _, m := range []string{produce, consume, "/log.v1.Log/GetServers", "/log.v1.Log/GetOffsets"} {
				require.True(t, may(a, named("client", "root"), m), m)
				require.False(t, may(a, named("client", "nobody"), m), m)
			}
		})
	}
}

func TestPolicy(t *testing.T) {
	a := open(t, "", `# who may what
p, alice, *, produce
p, bob, *, consume

p, gateway, *, impersonate
p, sidecar, *, impersonate
p, sidecar, *, produce
p, lost, *, produce
g, node1, group:nodes
g, node2, group:nodes
p, group:nodes, *, join
p, ops, *, admin
p, "o'neil, pat", *, consume
# what a role cannot have
p, mallory, *, admin
p, mallory, *, join
p, mallory, *, impersonate
p, gateway, *, admin
p, gateway, *, join
`)
	for name, tc := range map[string]struct {
		who    authz.Caller
		method string
		want   bool
	}{
		"what is allowed":                         {named("client", "alice"), produce, true},
		"what is not":                             {named("client", "alice"), consume, false},
		"the other way round":                     {named("client", "bob"), consume, true},
		"and its other half":                      {named("client", "bob"), produce, false},
		"nobody":                                  {named("client", "carol"), produce, false},
		"no name":                                 {named("client", ""), produce, false},
		"a name with a comma":                     {named("client", "o'neil, pat"), consume, true},
		"another case":                            {named("client", "Alice"), produce, false},
		"servers for who only produces":           {named("client", "alice"), "/log.v1.Log/GetServers", true},
		"servers for nobody":                      {named("client", "carol"), "/log.v1.Log/GetServers", false},
		"offsets for who only produces":           {named("client", "alice"), "/log.v1.Log/GetOffsets", false},
		"health for nobody":                       {named("client", "carol"), "/grpc.health.v1.Health/Check", true},
		"alice through a proxy":                   {through("gateway", "alice"), "/node.v1.Node/Append", true},
		"bob through a proxy":                     {through("gateway", "bob"), "/node.v1.Node/Append", false},
		"bob reads through a proxy":               {through("gateway", "bob"), "/node.v1.Node/FetchStream", true},
		"a principal that is an admin":            {through("gateway", "ops"), "/node.v1.Node/RemovePeer", false},
		"a sidecar for itself":                    {through("sidecar", "sidecar"), "/node.v1.Node/Append", true},
		"a gateway for itself":                    {through("gateway", "gateway"), "/node.v1.Node/Append", false},
		"a proxy that may not speak for others":   {through("lost", "alice"), "/node.v1.Node/Append", false},
		"nor ask how it stands for them":          {through("lost", "alice"), "/node.v1.Node/Stats", false},
		"nor for health":                          {through("lost", "alice"), "/grpc.health.v1.Health/Check", false},
		"an offset of its own":                    {named("proxy", "lost"), "/node.v1.Node/Offsets", false},
		"but watches":                             {named("proxy", "lost"), "/node.v1.Node/WatchCluster", true},
		"a node joins by its group":               {named("storage", "node1"), "/node.v1.Node/Join", true},
		"a node promises by its group":            {named("storage", "node2"), "/node.v1.Node/Promise", true},
		"a node that is in no group":              {named("storage", "node3"), "/node.v1.Node/Join", false},
		"it is repaired all the same":             {named("storage", "node3"), "/node.v1.Node/FetchEntries", true},
		"an admin":                                {named("admin", "ops"), "/node.v1.Node/RemovePeer", true},
		"looks":                                   {named("admin", "ops"), "/node.v1.Node/Stats", true},
		"and does not produce":                    {named("admin", "ops"), produce, false},
		"an admin by role alone":                  {named("admin", "alice"), "/node.v1.Node/RemovePeer", false},
		"does not even look":                      {named("admin", "alice"), "/node.v1.Node/Stats", false},
		"an admin's name on a client's":           {named("client", "ops"), "/node.v1.Node/RemovePeer", false},
		"a client with a policy for admin":        {named("client", "mallory"), "/node.v1.Node/RemovePeer", false},
		"a client with a policy for join":         {named("client", "mallory"), "/node.v1.Node/Join", false},
		"a client with a policy to impersonate":   {authz.Caller{Role: "client", Name: "mallory", Principal: "alice", Proxied: true}, produce, false},
		"a proxy with a policy for admin":         {named("proxy", "gateway"), "/node.v1.Node/RemovePeer", false},
		"a proxy with a policy for admin, for it": {through("gateway", "gateway"), "/node.v1.Node/TransferLeadership", false},
		"a proxy with a policy for join":          {named("proxy", "gateway"), "/node.v1.Node/Join", false},
		"a proxy with a policy for join, promise": {through("gateway", "node1"), "/node.v1.Node/Promise", false},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second time from memory
				require.Equal(t, tc.want, may(a, tc.who, tc.method))
			}
		})
	}
}

func TestADenialSaysWhoMayNotWhat(t *testing.T) {
	a := open(t, "", "p, gateway, *, impersonate\np, lost, *, produce\n")
	for want, call := range map[string]struct {
		who    authz.Caller
		method string
	}{
		"/log.v1.Log/Produce: bob may not produce":                                    {named("client", "bob"), produce},
		"/node.v1.Node/Append: bob, for whom gateway speaks, may not produce":         {through("gateway", "bob"), "/node.v1.Node/Append"},
		"/node.v1.Node/Append: lost may not impersonate":                              {through("lost", "bob"), "/node.v1.Node/Append"},
		"/node.v1.Node/Join: not for role proxy (gateway)":                            {named("proxy", "gateway"), "/node.v1.Node/Join"},
		"/node.v1.Node/Append: gateway has to say for whom (logd-original-principal)": {named("proxy", "gateway"), "/node.v1.Node/Append"},
	} {
		_, err := a.Check(call.who, call.method)
		require.EqualError(t, err, want)
		var denied *authz.DeniedError
		require.ErrorAs(t, err, &denied)
		require.Equal(t, call.who, denied.Caller)
	}
}

// A model of one's own may match as it likes.
func TestAnotherModel(t *testing.T) {
	a := open(t, strings.Replace(bookModel, "m = r.sub == p.sub && r.obj == p.obj && r.act == p.act",
		"m = keyMatch(r.sub, p.sub) && regexMatch(r.act, p.act)", 1), "p, team-*, log, (produce)|(consume)\n")
	require.True(t, may(a, named("client", "team-a"), produce))
	require.True(t, may(a, named("client", "team-b"), consume))
	require.False(t, may(a, named("client", "a-team"), consume))
	require.False(t, may(a, named("client", "team-a"), "/node.v1.Node/RemovePeer"))
}

// What is looked up is what casbin would have said.
func TestTheIndexDecidesAsTheModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	name := func() string { return string(rune('a' + rnd.IntN(8))) }
	allowed := 0
	for range 200 {
		var text strings.Builder
		for range 1 + rnd.IntN(5) {
			fmt.Fprintf(&text, "p, %s, *, %s\n", name(), []string{"produce", "consume"}[rnd.IntN(2)])
		}
		for range rnd.IntN(12) {
			fmt.Fprintf(&text, "g, %s, %s\n", name(), name())
		}
		ours, theirs := open(t, "", text.String()), open(t, authz.DefaultModel, text.String())
		for c := 'a'; c < 'j'; c++ {
			for _, m := range []string{produce, consume} {
				who := named("client", string(c))
				want := may(theirs, who, m)
				require.Equal(t, want, may(ours, who, m), "%s: %s by\n%s", m, who.Name, text.String())
				if want {
					allowed++
				}
			}
		}
	}
	require.NotZero(t, allowed)
	// As deep as casbin follows groups, and no deeper.
	text := "p, g10, *, produce\n"
	for i := range 10 {
		text += fmt.Sprintf("g, g%d, g%d\n", i, i+1)
	}
	for deep, want := range map[string]bool{"g0": true, "more": false} {
		for _, model := range []string{"", authz.DefaultModel} {
			require.Equal(t, want, may(open(t, model, text+"g, more, g0\n"), named("client", deep), produce), deep)
		}
	}
}

// What is wrong with a policy under our model, and with a model.
func TestFilesThatDoNotLoad(t *testing.T) {
	for name, tc := range map[string]struct{ model, policy, want string }{
		"nothing":                         {"", "", "has no rule"},
		"comments alone":                  {"", "# p, root, *, produce\n\n", "has no rule"},
		"groups alone":                    {"", "g, alice, writers\n", "has no rule"},
		"a field too few":                 {"", "p, root, *, produce\np, root, *\n", "policy.csv:2: invalid policy rule size"},
		"a field too many":                {"", "p, root, *, produce, allow\n", "policy.csv:1: invalid policy rule size"},
		"a line cut off":                  {"", "p, root, *, produce\np, root, *, cons", `policy.csv:2: action "cons": one of produce, consume, admin, join, impersonate`},
		"an action in capitals":           {"", "p, root, *, Produce\n", `action "Produce"`},
		"a topic":                         {"", "p, root, orders, produce\n", `object "orders"`},
		"nobody":                          {"", "p, , *, produce\n", "a rule for nobody"},
		"another kind of line":            {"", "x, root, *, produce\n", "policy.csv:1"},
		"a rule of another kind":          {"", "p2, root, *, produce\n", "policy.csv:1"},
		"no kind":                         {"", ", root, *, produce\n", "begins with p or g"},
		"an open quote":                   {"", "p, \"root, *, produce\n", "policy.csv:1"},
		"a group of one":                  {"", "p, root, *, produce\ng, alice\n", "policy.csv:2"},
		"no model":                        {"nothing here\n", bookPolicy, "model.conf"},
		"a model without matcher":         {strings.Split(bookModel, "# Matchers")[0], bookPolicy, "model.conf"},
		"a matcher that is no expression": {strings.Replace(bookModel, "r.sub == p.sub", "r.sub == (", 1), bookPolicy, "model.conf"},
		"a matcher of another request":    {strings.Replace(bookModel, "r = sub, obj, act", "r = sub, dom, obj, act", 1), bookPolicy, "model.conf"},
		"a matcher that calls nothing":    {strings.Replace(bookModel, "r.sub == p.sub", "nosuch(r.sub)", 1), bookPolicy, "model.conf"},
		"a groups' line without groups":   {bookModel, bookPolicy + "g, a, b\n", "policy.csv:3"},
	} {
		t.Run(name, func(t *testing.T) {
			f := write(t, tc.model, tc.policy)
			_, err := authz.Open(authz.Options{Files: f.Files})
			require.ErrorContains(t, err, tc.want)
			var fe *authz.FileError
			require.ErrorAs(t, err, &fe)
			require.Equal(t, err.Error(), authz.Verify(f.Files).Error())
		})
	}
	f := write(t, "", bookPolicy)
	require.NoError(t, authz.Verify(f.Files))
	f.Files.Model = filepath.Join(t.TempDir(), "none")
	require.ErrorIs(t, authz.Verify(f.Files), os.ErrNotExist)
	require.ErrorIs(t, authz.Verify(authz.Files{Policy: f.Model}), os.ErrNotExist)
}

// Whatever stands in a file, it loads or it does not, and what loads can decide.
func FuzzFiles(f *testing.F) {
	f.Add(bookModel, bookPolicy)
	f.Add("", "p, \"a\", *, produce\ng, b, a\n")
	f.Add("[request_definition]\nr =", ",")
	f.Fuzz(func(t *testing.T, model, policy string) {
		a, err := authz.Open(authz.Options{Files: write(t, model, policy).Files})
		if err != nil {
			var fe *authz.FileError
			if !errors.As(err, &fe) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		may(a, named("client", "root"), produce)
	})
}

// The names of callers are bounded by nothing, what is remembered of them is.
func TestManyNames(t *testing.T) {
	a := open(t, "", "p, gateway, *, impersonate\np, u7, *, produce\n")
	for range 2 {
		for i := range 10_000 {
			require.Equal(t, i == 7, may(a, through("gateway", fmt.Sprintf("u%d", i)), "/node.v1.Node/Append"), i)
		}
	}
	require.LessOrEqual(t, authz.Known(a), 4096)
}

func TestADecisionThatIsKnownCostsNoMemory(t *testing.T) {
	for name, a := range map[string]*authz.Authorizer{"policy": open(t, "", bookPolicy+"p, gateway, *, impersonate\n"), "roles": authz.ByRole()} {
		for _, call := range []struct {
			who    authz.Caller
			method string
		}{{named("client", "root"), produce}, {through("gateway", "root"), "/node.v1.Node/Append"}} {
			require.True(t, may(a, call.who, call.method))
			require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = a.Check(call.who, call.method) }), name)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "p, u%d, *, produce\n", i)
	}
	f := filepath.Join(b.TempDir(), "policy.csv")
	require.NoError(b, os.WriteFile(f, []byte(many.String()+"p, gateway, *, impersonate\n"), 0o600))
	policy, err := authz.Open(authz.Options{Files: authz.Files{Policy: f}})
	require.NoError(b, err)
	for name, a := range map[string]*authz.Authorizer{"roles": authz.ByRole(), "policy of 1000": policy} {
		for who, c := range map[string]authz.Caller{"direct": named("client", "u999"), "proxied": through("gateway", "u999")} {
			method := map[bool]string{true: "/node.v1.Node/Append", false: produce}[c.Proxied]
			b.Run(name+"/"+who, func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := a.Check(c, method); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
	}
	b.Run("policy of 1000/never seen", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_, _ = policy.Check(named("client", fmt.Sprint("n", i)), produce)
		}
	})
}
