# A sidecar: plaintext on loopback for the program beside it, mutual TLS to the
# nodes of examples/hcl/cluster. `logproxy agent -config proxy.hcl`.

name    = "proxy1" # that of the certificate: spiffe://example/proxy/proxy1
cluster = "example"

listener {
  # Plaintext is served on loopback or a unix socket only (unix:///run/logproxy.sock).
  # Anywhere else the listener needs a tls block, and clients a certificate.
  address = "127.0.0.1:8410"
}

gossip {
  address    = "0.0.0.0:8411"
  retry_join = ["node1.example.net:8401", "node2.example.net:8401", "node3.example.net:8401"]
  key_file   = "/etc/logproxy/gossip.key"
}

admin {
  address = "127.0.0.1:8412"
}

upstream {
  tls {
    ca_file   = "/etc/logproxy/tls/ca.pem"
    cert_file = "/etc/logproxy/tls/proxy1.pem"
    key_file  = "/etc/logproxy/tls/proxy1-key.pem"
  }
}

produce {
  hold_timeout   = "10s" # how long a produce waits for a leader
  max_held_bytes = "64MiB"
}

limits { # what clients can make it hold
  max_calls = 10000 # open at a time, streams included
  memory    = "1GiB"
}

consume {
  # Which follower is read: "round_robin", "least_request" (the less busy of two),
  # "consistent_hash" (the same for the same logd-routing-key), or "leader" (none).
  balance = "round_robin"
  max_lag = 100000 # records behind, and a follower is passed over; 0: never
}
