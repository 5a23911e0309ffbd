cluster = "k8s"

listener {
  address = "127.0.0.1:8410" # the pod's containers share it
}

# A job comes and goes too soon for gossip, and need not have its key. These nodes
# tell of the others.
discovery "static" {
  nodes = ["logd-0.logd.logd.svc:8400", "logd-1.logd.logd.svc:8400", "logd-2.logd.logd.svc:8400"]
}

admin {
  address = "0.0.0.0:8412" # the kubelet's probes come from outside
}

upstream {
  tls {
    ca_file   = "/etc/logproxy/secret/ca.pem"
    cert_file = "/etc/logproxy/secret/tls.pem"
    key_file  = "/etc/logproxy/secret/tls-key.pem"
  }
}

limits {
  memory = "160MiB" # refused above it; GOMEMLIMIT is higher, the container's limit higher still
}

produce {
  max_held_bytes = "32MiB"
}

drain_timeout = "30s" # terminationGracePeriodSeconds is longer
log_format    = "json"
