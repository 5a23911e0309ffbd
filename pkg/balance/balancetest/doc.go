// Package balancetest is the suite that every balance.Policy must pass.
//
// It holds what callers of any policy rely on, and nothing about how one spreads.
// Tests call it; it is never linked into a program.
package balancetest
