# Four mistakes of four kinds. All are reported at once.
data_dir         = "/var/lib/logd"
bootstrap_expct  = 3
retry_join       = ["logd-0.logd:8401", "logd-1.logd:8401"]
gossip_key_file  = "/etc/logd/gossip.key"

tls {
  ca_file   = "/etc/logd/ca.pem"
  cert_file = "/etc/logd/node.pem"
}

raft {
  heartbeat_timeout = "300"
}

ports {
  rpc = 84000
}
