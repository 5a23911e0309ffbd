// Package authz says who may do what on a node: by the role in the caller's
// certificate, and, where there are policy files, by its name.
//
// Invariant: what is not allowed is refused. A method that is not listed is
// refused to everybody, so that one added to a .proto stays closed until somebody
// decides; a policy grants nobody what its role cannot have; and of two policies
// one decides a call, never a part of each.
//
// The server asks it once a call, and again for each open stream after the policy
// has changed. It reads no certificate and no request, and writes no audit.
//
// Importable, not promised.
package authz
