// Package testutil is what our tests share: the goroutine leak check of a
// TestMain, and waiting for something that comes to be true without sleeping and
// hoping.
//
// Tests of every package use it; nothing else may import it.
package testutil
