# A sidecar that finds the nodes by a name, as Kubernetes has one for a headless Service.
# It takes no part in gossip. If the name is not found, the nodes that are known stay.

name    = "proxy1"
cluster = "example"

listener {
  address = "unix:///run/logproxy/logproxy.sock"
}

discovery "dns" {
  name     = "logd.default.svc"
  port     = 8400
  interval = "10s" # records' time to live is not known to the proxy

  # Or by SRV records, which say ports too:
  #
  #   name = "_rpc._tcp.logd.default.svc"
  #   srv  = true
}

upstream {
  tls {
    ca_file   = "/etc/logproxy/tls/ca.pem"
    cert_file = "/etc/logproxy/tls/proxy1.pem"
    key_file  = "/etc/logproxy/tls/proxy1-key.pem"
  }
}
