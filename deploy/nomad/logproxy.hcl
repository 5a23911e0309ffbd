# The logproxy of app.nomad.hcl and of system.nomad.hcl. Whom it joins and its address in gossip are in
# its environment; the files in /secrets are rendered by Nomad.

cluster = "nomad"

listener {
  address = "127.0.0.1:8410" # in app, the group's tasks share it; in system, those of the host
}

gossip {
  key_file = "/secrets/gossip.key"
}

admin {
  address = "0.0.0.0:8412" # checks and Prometheus come from outside
}

upstream {
  tls {
    ca_file   = "/secrets/ca.pem"
    cert_file = "/secrets/proxy.pem"
    key_file  = "/secrets/proxy-key.pem"
  }
}

limits {
  memory = "160MiB" # refused above it; GOMEMLIMIT is higher, the task's memory higher still
}

produce {
  max_held_bytes = "32MiB"
}

drain_timeout = "30s" # kill_timeout is longer
log_format    = "json"
