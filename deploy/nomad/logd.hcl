# Shared by the three allocations of logd.nomad.hcl. Each takes its name from the
# certificate of its host, its address and whom to join from its environment.

cluster          = "nomad"
data_dir         = "/var/lib/logd/data"
bootstrap_expect = 3
gossip_key_file  = "/etc/logd/gossip.key"
log_format       = "json"

tls {
  ca_file   = "/etc/logd/tls/ca.pem"
  cert_file = "/etc/logd/tls/node.pem"
  key_file  = "/etc/logd/tls/node-key.pem"
}
