package smart

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Options of a connection.
type Options struct {
	// Servers are the credentials for the servers that calls go to. The host of each
	// server's address is the name its certificate must have.
	Servers credentials.TransportCredentials
	// Ask is for the server that is asked who the servers are; nil: as Servers.
	Ask credentials.TransportCredentials
	// AskOnRefusal makes the client ask anew when a server refuses a call with
	// FailedPrecondition, as one does that leads no more. The book's client does not:
	// it asks anew when a connection breaks, and then only.
	AskOnRefusal bool
}

// Dial makes a connection to the servers that the one at address, host:port or
// unix:///path, names.
func Dial(address string, opt Options) (*grpc.ClientConn, error) {
	if opt.Ask == nil {
		opt.Ask = opt.Servers
	}
	return grpc.NewClient(scheme+":///"+address,
		grpc.WithTransportCredentials(opt.Servers),
		grpc.WithResolvers(builder{opt}),
		grpc.WithNoProxy(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"`+policy+`": {}}]}`),
	)
}
