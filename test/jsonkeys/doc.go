// Package jsonkeys holds the JSON that the commands and the admin port write to one
// rule, which docs/ops/monitoring.md tells operators. It goes by the sources of the
// types, so that a new one is held to it too. What is kept on disk has another: docs/format.md.
package jsonkeys
