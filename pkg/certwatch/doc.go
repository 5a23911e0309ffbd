// Package certwatch keeps a tlsconf.Source in step with its files.
//
// Invariant: a source only ever goes from one set of files that loaded whole to
// another. A set that does not load is logged and counted once, however long it
// lies there, and changes nothing; one that has loaded is in use for every
// handshake from then on.
//
// The files are read every two seconds and compared by content. Notifications
// (inotify) would be sooner, and would have to follow the symlinks that
// Kubernetes swaps, renames over the files, and file systems that send none; three
// small files cost nothing to read.
//
// Compositions (agent, proxy) run it. It never ends a connection, and never
// looks into a certificate beyond how long it lasts. Importable, not promised.
package certwatch
