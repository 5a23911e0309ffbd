// Package commitlog stores the entries of one replicated log on one node, and
// finds records in them by offset.
//
// The invariant: what [Log.Append] acknowledged is there, identical, after any
// crash, and nothing that was not appended is ever read. DESIGN.md beside this
// file numbers the parts of it (I1…) and says what each failure does; the byte
// layouts are drawn in frame.go, segment.go, and docs/format.md.
//
// raftstore appends, truncates and reads entries by index; the state machine
// of replica publishes offsets as it applies entries; server reads by offset
// and waits. It never talks to a network, knows nothing of Raft's library,
// retries no write and no sync, and starts no goroutine.
//
// This package is promised to importers.
package commitlog
