# Shared by the allocations of logd.nomad.hcl. Name, address and whom to join are in
# the environment of each; the files in /secrets are rendered by Nomad.

cluster          = "nomad"
data_dir         = "/var/lib/logd/data"
bootstrap_expect = 3
gossip_key_file  = "/secrets/gossip.key"
log_format       = "json"

tls {
  ca_file   = "/secrets/ca.pem"
  cert_file = "/secrets/node.pem"
  key_file  = "/secrets/node-key.pem"
}

drain_timeout = "30s" # kill_timeout is longer
