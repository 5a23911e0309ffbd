# /etc/logd/logd.hcl: one of three nodes. `logd validate /etc/logd/logd.hcl` checks it.
#
# To be filled in before the first start:
#   1. retry_join: the other nodes (this file need not be different on each)
#   2. advertise_addr: this machine's name or address, as the others reach it
#   3. /etc/logd/tls: ca.pem, node.pem and node-key.pem, made by `logd tls`
#   4. /etc/logd/gossip.key: made by `logd keygen`, the same on all nodes
# The two keys are to be owned by root:logd with mode 0640.
# /usr/share/doc/logd/README.Debian has the commands.

data_dir         = "/var/lib/logd/data"
bootstrap_expect = 3
retry_join       = ["node1.example.net:8401", "node2.example.net:8401", "node3.example.net:8401"]

# advertise_addr = "node1.example.net"

gossip_key_file = "/etc/logd/gossip.key"

tls {
  ca_file   = "/etc/logd/tls/ca.pem"
  cert_file = "/etc/logd/tls/node.pem"
  key_file  = "/etc/logd/tls/node-key.pem"
}
