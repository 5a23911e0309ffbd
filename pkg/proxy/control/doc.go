// Package control decides where requests go: it turns what the sources of nodes, the
// nodes themselves and failed requests say into route.Tables.
//
// One goroutine owns everything it knows; others only carry messages to it. It
// watches every node of a small cluster, so that a new leader is heard of from
// whoever knows first, and up to Config.WatchLimit nodes of a large one.
//
// Invariants:
//
//   - One cluster uuid is pinned, the first one heard; a node of another cluster
//     is an error in the log and gets no request. To be read from, a node must have
//     said which it is of, on the connection there is. What leads is taken at its
//     word before that, and every call says which cluster it is for: a node of
//     another refuses it.
//   - The term of published tables never falls, and at one term the leader never
//     changes to another node. Gossip has no say in it: what discovery sends is
//     addresses.
//   - No leader in the table means that none is known or reachable, and produces
//     are held. A wrong leader does no harm, since the node refuses and Raft
//     commits nothing it should not; it only costs time.
//   - Ejection, and any other distrust, leaves at least one follower.
//
// When the leader dies: its node stays leader, as far as views go, until a view
// with a higher term names another, which every node pushes the moment it votes
// or hears. What takes it out of the table before that is its connection: broken
// (refused or reset), produces are held rather than thrown at it, and they go
// on at once when the connection is back with no new leader elected. A watch that
// merely stalls takes no leader out: the data path may well still work. A leader
// that says it drains or that it no longer leads its term is believed at once.
//
// Known limit: a node with a higher term and no leader makes the proxy hold, even
// if that node is cut off from its peers and nobody else has heard of the term;
// pre-vote keeps nodes from getting there alone.
//
// The proxy's composition runs it; forward sends it hints through an interface of
// forward's own. If it stops, requests go on by the last table. It never carries
// a request.
package control
