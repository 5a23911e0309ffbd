// Package cli is what the logd and logproxy commands share: running a command,
// its flags and help, exit codes, output as a table or JSON, the connection
// flags, progress.
//
// Invariant: results go to standard output, and everything else, errors and
// progress, to standard error; the exit code is 0, 1 for a failure, 2 for a
// mistake in the command line, 3 for a fatal fault of the process.
//
// What -format json writes follows the rule for keys in docs/ops/monitoring.md, which
// test/jsonkeys holds it to.
//
// cmd/logd and cmd/logproxy use it. It never exits the process: only main does.
package cli
