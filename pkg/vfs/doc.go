// Package vfs is the set of file operations that logd's storage uses, as an
// interface small enough to be implemented exactly.
//
// The invariant: whatever an implementation reports as synced survives a
// crash, and nothing else is promised to. A file's bytes and size are durable
// after [File.Sync]; its name, a rename and a removal after [FS.SyncDir] of
// the directory.
//
// commitlog and raftstore do all their I/O through it. [OS] is the real disk,
// memfs (below this package) one that can crash, faultfs one that can fail.
// It never caches, never retries and starts no goroutine.
//
// This package is promised to importers.
package vfs
