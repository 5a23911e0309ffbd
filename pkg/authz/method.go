package authz

import (
	"slices"
	"strings"
)

// The roles, as certificates name them (spiffe://<cluster>/<role>/<name>).
const (
	client  = "client"
	proxy   = "proxy"
	storage = "storage"
	admin   = "admin"
)

// rule is what is said about one method.
type rule struct {
	roles []string
	// actions: one of them has to be allowed. With none the role decides alone, but
	// for role admin, which needs the action of that name.
	actions []Action
	// principal: a proxy calls it for somebody and has to say for whom.
	principal bool
}

var (
	users    = []string{client, proxy, admin}
	insiders = []string{proxy, storage, admin}
	nodes    = []string{storage}
	admins   = []string{admin}

	produces   = []Action{Produce}
	consumes   = []Action{Consume}
	either     = []Action{Produce, Consume, Admin}
	joins      = []Action{Join}
	operates   = []Action{Admin}
	speaks     = []Action{Impersonate}
	byRoleOnly []Action
)

// rules, by full method name. Never changed.
var rules = map[string]rule{
	"/log.v1.Log/Produce":       {users, produces, true},
	"/log.v1.Log/Consume":       {users, consumes, true},
	"/log.v1.Log/ConsumeStream": {users, consumes, true},
	"/log.v1.Log/ProduceStream": {users, produces, true},
	"/log.v1.Log/GetServers":    {users, either, false}, // whoever may do something has to find where
	"/log.v1.Log/GetOffsets":    {users, consumes, false},

	"/node.v1.Node/Append":             {insiders, produces, true},
	"/node.v1.Node/Fetch":              {insiders, consumes, true},
	"/node.v1.Node/FetchStream":        {insiders, consumes, true},
	"/node.v1.Node/Offsets":            {insiders, consumes, false},
	"/node.v1.Node/WatchCluster":       {insiders, byRoleOnly, false},
	"/node.v1.Node/Stats":              {insiders, byRoleOnly, false},
	"/node.v1.Node/Join":               {nodes, joins, false},
	"/node.v1.Node/Promise":            {nodes, joins, false},
	"/node.v1.Node/FetchEntries":       {nodes, byRoleOnly, false},
	"/node.v1.Node/FetchCheckpoint":    {nodes, byRoleOnly, false},
	"/node.v1.Node/ReadIndex":          {nodes, byRoleOnly, false},
	"/node.v1.Node/CompareHash":        {nodes, byRoleOnly, false},
	"/node.v1.Node/TransferLeadership": {admins, operates, false},
	"/node.v1.Node/RemovePeer":         {admins, operates, false},
	"/node.v1.Node/ListKeys":           {admins, operates, false},
	"/node.v1.Node/InstallKey":         {admins, operates, false},
	"/node.v1.Node/UseKey":             {admins, operates, false},
	"/node.v1.Node/RemoveKey":          {admins, operates, false},
}

// Audited says whether a call of the method is to be told even when it is
// allowed: it changes what the cluster is.
func Audited(method string) bool {
	a := rules[method].actions
	return len(a) == 1 && (a[0] == Admin || a[0] == Join)
}

// public services take every role: they tell nothing a certificate does not open.
var public = []string{
	"/grpc.health.v1.Health/",
	"/grpc.reflection.v1.ServerReflection/",
	"/grpc.reflection.v1alpha.ServerReflection/",
}

// Public says whether a method, by its full name, takes every role.
func Public(method string) bool {
	return slices.ContainsFunc(public, func(prefix string) bool { return strings.HasPrefix(method, prefix) })
}

// possible is what a policy may grant the holders of a role, for themselves.
var possible = map[string]powers{
	client:  of(Produce, Consume),
	proxy:   of(Impersonate),
	storage: of(Join, Produce, Consume),
	admin:   of(Produce, Consume, Admin),
}

// granted is what they may without a policy.
var granted = map[string]powers{
	client:  of(Produce, Consume),
	proxy:   of(Impersonate),
	storage: of(Join),
	admin:   of(Produce, Consume, Admin),
}

// represented is what a principal may, or may be granted, that a proxy speaks for:
// whatever its own role is, a proxy carries no more.
var represented = of(Produce, Consume)
