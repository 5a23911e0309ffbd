// Package zk is the discovery source that reads a serverset in ZooKeeper: the
// members below a path, as Finagle and strava/go.serversets write them.
//
// Invariant: one Conn is one connection and one session. When the connection ends
// so does its use of the session, and a new one begins with fresh watches, so that no
// state has to outlive a connection. What a server answers takes bounded memory and
// can do no worse than end the connection.
//
// The proxy's composition makes a Source; package registrar writes members over a Conn.
// The package speaks the few requests of ZooKeeper's protocol that these two need;
// docs/adr/0029 says why it is no library. It never says who leads.
//
// The package is promised to importers.
package zk
