// Package authz says who may do what: which roles may call which method of a
// node, and in which of them a proxy has to say for whom it acts.
//
// Invariant: what is not listed is refused to everybody, so that a method added
// to a .proto stays closed until somebody decides.
//
// The server asks it once a call. Decisions go by the role in the caller's
// certificate; rules about principals (model and policy files) have their place
// here and are not there yet. It reads no certificate and no request.
//
// Importable, not promised.
package authz
