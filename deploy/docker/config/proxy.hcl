# The gateway of compose.yaml. It is reached from outside its container, so
# its listener is mutual TLS; beside a program, in the same network namespace, it
# would listen in plaintext on 127.0.0.1:8410.

name    = "gateway"
cluster = "compose"

listener {
  address = "0.0.0.0:8410"
  tls {
    ca_file   = "/etc/logd/tls/ca.pem"
    cert_file = "/etc/logd/tls/gateway.pem"
    key_file  = "/etc/logd/tls/gateway-key.pem"
  }
}

gossip {
  retry_join = ["node1:8401", "node2:8401", "node3:8401"]
  key_file   = "/etc/logd/tls/gossip.key"
}

admin {
  address = "0.0.0.0:8412"
}

upstream {
  tls {
    ca_file   = "/etc/logd/tls/ca.pem"
    cert_file = "/etc/logd/tls/gateway.pem"
    key_file  = "/etc/logd/tls/gateway-key.pem"
  }
}

log_format = "json"
