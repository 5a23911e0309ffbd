package tlsconf

import (
	"crypto/x509"
	"time"
)

// EndsSoon says whether a certificate is in the last fifth of its life, or in its
// last seven days when those are less, or over. What lives for hours is replaced
// by something that runs; what lives for years, by somebody who needs days.
func EndsSoon(c *x509.Certificate, now time.Time) bool {
	fifth := c.NotAfter.Sub(c.NotBefore) / 5
	return c.NotAfter.Sub(now) < min(fifth, endsSoon)
}

const endsSoon = 7 * 24 * time.Hour
