package proxy

import (
	"net"

	"github.com/logd-io/logd/pkg/internal/netlimit"
)

// Accepted is lis as Run serves it.
func Accepted(lis net.Listener) net.Listener { return accepted{lis, netlimit.NewNewest(8, nil)} }
