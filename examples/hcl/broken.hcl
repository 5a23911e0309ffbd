# Not a configuration: what `logd validate examples/hcl/broken.hcl` makes of it
# is the point. It has three mistakes, and all three are reported.

data_dir         = "/var/lib/logd/data"
bootstrap_expect = 3
retry_join       = ["node1.example.net:84010"]
gossip_key_file  = "/etc/logd/gossip.key"

tls {
  ca_file   = "/etc/logd/tls/ca.pem"
  cert_file = "/etc/logd/tls/node1.pem"
  key_file  = "/etc/logd/tls/node1-key.pem"
}

raft {
  heartbeat_timeout = "300"
}

log {
  segment_sise = "64MiB"
}
