# A sidecar that takes no part in gossip: it is told the nodes, and follows
# leadership through them alone.

name    = "proxy1"
cluster = "example"

listener {
  address = "unix:///run/logproxy/logproxy.sock"
}

discovery "static" {
  nodes = ["node1.example.net:8400", "node2.example.net:8400", "node3.example.net:8400"]
}

upstream {
  tls {
    ca_file   = "/etc/logproxy/tls/ca.pem"
    cert_file = "/etc/logproxy/tls/proxy1.pem"
    key_file  = "/etc/logproxy/tls/proxy1-key.pem"
  }
}
