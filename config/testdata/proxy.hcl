cluster = "dev"

listener {
  address = "unix:///run/logproxy/log.sock"
}

upstream {
  tls {
    ca_file   = "ca.pem"
    cert_file = "proxy.pem"
    key_file  = "proxy.key"
  }
}

discovery "static" {
  nodes = ["127.0.0.1:8400", "127.0.0.2:8400"]
}

produce {
  hold_timeout   = "3s"
  max_held_bytes = "16MiB"
}

limits {
  max_connections = 500
  memory          = "256MiB"
}
