# Shared by the three nodes of compose.yaml; their names and addresses are in their
# environment, and each has its own certificate in its volume.

cluster          = "compose"
data_dir         = "/var/lib/logd/data"
bootstrap_expect = 3
retry_join       = ["node1:8401", "node2:8401", "node3:8401"]
gossip_key_file  = "/etc/logd/tls/gossip.key"
log_format       = "json"

tls {
  ca_file   = "/etc/logd/tls/ca.pem"
  cert_file = "/etc/logd/tls/node.pem"
  key_file  = "/etc/logd/tls/node-key.pem"
}
