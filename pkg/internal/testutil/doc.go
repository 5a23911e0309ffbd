// Package testutil is what our tests share: the goroutine leak check of a
// TestMain, waiting for something that comes to be true without sleeping and
// hoping, and a log that is read while it is written.
//
// Tests of every package use it; nothing else may import it.
package testutil
