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
	// principal: a proxy calls it for somebody and has to say for whom.
	principal bool
}

var (
	users    = []string{client, proxy, admin}
	insiders = []string{proxy, storage, admin}
	nodes    = []string{storage}
	admins   = []string{admin}
)

// rules, by full method name. Never changed.
var rules = map[string]rule{
	"/log.v1.Log/Produce":       {users, true},
	"/log.v1.Log/Consume":       {users, true},
	"/log.v1.Log/ConsumeStream": {users, true},
	"/log.v1.Log/ProduceStream": {users, true},
	"/log.v1.Log/GetServers":    {users, false},
	"/log.v1.Log/GetOffsets":    {users, false},

	"/node.v1.Node/Append":             {insiders, true},
	"/node.v1.Node/Fetch":              {insiders, true},
	"/node.v1.Node/FetchStream":        {insiders, true},
	"/node.v1.Node/Offsets":            {insiders, false},
	"/node.v1.Node/WatchCluster":       {insiders, false},
	"/node.v1.Node/Stats":              {insiders, false},
	"/node.v1.Node/Join":               {nodes, false},
	"/node.v1.Node/Promise":            {nodes, false},
	"/node.v1.Node/FetchEntries":       {nodes, false},
	"/node.v1.Node/FetchCheckpoint":    {nodes, false},
	"/node.v1.Node/ReadIndex":          {nodes, false},
	"/node.v1.Node/CompareHash":        {nodes, false},
	"/node.v1.Node/TransferLeadership": {admins, false},
	"/node.v1.Node/RemovePeer":         {admins, false},
}

// openServices take every role: they tell nothing a certificate does not open.
var openServices = []string{
	"/grpc.health.v1.Health/",
	"/grpc.reflection.v1.ServerReflection/",
	"/grpc.reflection.v1alpha.ServerReflection/",
}

// Open says whether a method, by its full name, takes every role.
func Open(method string) bool {
	return slices.ContainsFunc(openServices, func(prefix string) bool { return strings.HasPrefix(method, prefix) })
}

// Allowed says whether the holder of a certificate with that role may call a
// method.
func Allowed(role, method string) bool {
	return Open(method) || slices.Contains(rules[method].roles, role)
}

// NeedsPrincipal says whether a proxy that calls a method has to say for whom.
func NeedsPrincipal(method string) bool { return rules[method].principal }
