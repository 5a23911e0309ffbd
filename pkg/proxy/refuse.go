package proxy

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What the proxy refuses before a request means anything to it. Everything else
// it answers is apierr's.

func notForClients(service string) error {
	return status.Errorf(codes.PermissionDenied, "%s is not for clients of a proxy", service)
}

func unknownMethod(method string) error {
	return status.Errorf(codes.Unimplemented, "unknown method %q", method)
}

func noIdentity(why string) error {
	return status.Errorf(codes.Unauthenticated, "no identity: %s", why)
}
