cluster = "k8s"

listener {
  address = "0.0.0.0:8410"
  tls { # reached from other machines, so clients need a certificate
    ca_file   = "/etc/logproxy/tls/ca.crt"
    cert_file = "/etc/logproxy/tls/tls.crt"
    key_file  = "/etc/logproxy/tls/tls.key"
  }
}

gossip {
  retry_join = ["logd-0.logd:8401", "logd-1.logd:8401", "logd-2.logd:8401"]
  key_file   = "/etc/logproxy/gossip/gossip.key"
}

admin {
  address = "0.0.0.0:8412" # the kubelet's probes and Prometheus come from outside
}

upstream {
  tls {
    ca_file   = "/etc/logproxy/tls/ca.crt"
    cert_file = "/etc/logproxy/tls/tls.crt"
    key_file  = "/etc/logproxy/tls/tls.key"
  }
}

limits {
  memory = "640MiB" # refused above it; GOMEMLIMIT is higher, the container's limit higher still
}

drain_delay   = "5s"  # until the Service has noticed that the pod goes
drain_timeout = "30s" # terminationGracePeriodSeconds is longer than both
log_format    = "json"
