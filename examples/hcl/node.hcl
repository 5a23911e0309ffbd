# One storage node that is a cluster of its own: `logd agent -config node.hcl`.
#
# Make its certificates and its gossip key first:
#   logd tls ca create        and   logd tls cert create -role storage -name node1
#   logd keygen
# Everything that is not said here has a default; docs/ops/configuration.md has them.

name    = "node1" # that of the certificate: spiffe://example/storage/node1
cluster = "example"

data_dir         = "/var/lib/logd/data"
bind_addr        = "127.0.0.1"
bootstrap_expect = 1

gossip_key_file = "/etc/logd/gossip.key"

tls {
  ca_file   = "/etc/logd/tls/ca.pem"
  cert_file = "/etc/logd/tls/node1.pem"
  key_file  = "/etc/logd/tls/node1-key.pem"
}
