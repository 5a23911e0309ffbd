# A gateway: one proxy for many programs on other machines. They come with certificates
# of role client, and each is to the nodes who its certificate says; a policy on the nodes
# (examples/acl) has to let this proxy speak for them: p, gateway, *, impersonate.

name    = "gateway"
cluster = "example"

listener {
  address = "0.0.0.0:8410"

  tls {
    ca_file   = "/etc/logproxy/tls/ca.pem"
    cert_file = "/etc/logproxy/tls/gateway.pem" # with the names that clients dial: -dns gateway.example.net
    key_file  = "/etc/logproxy/tls/gateway-key.pem"
  }
}

gossip {
  address    = "0.0.0.0:8411"
  retry_join = ["node1.example.net:8401", "node2.example.net:8401", "node3.example.net:8401"]
  key_file   = "/etc/logproxy/gossip.key"
}

admin {
  address = "0.0.0.0:8412" # from elsewhere: /metrics, /healthz and /readyz only
}

upstream {
  tls {
    ca_file   = "/etc/logproxy/tls/ca.pem"
    cert_file = "/etc/logproxy/tls/gateway.pem"
    key_file  = "/etc/logproxy/tls/gateway-key.pem"
  }
}

limits {
  produce_rate = "32MiB" # a second, of each client
}

drain_delay = "5s" # until the balancer before it has noticed that it goes
