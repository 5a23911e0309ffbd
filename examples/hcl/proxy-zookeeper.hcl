# A sidecar that finds the nodes in ZooKeeper: below path are members as Finagle's
# serversets have them, which the nodes' register "zookeeper" writes, or anything else
# that does. It takes no part in gossip. If ZooKeeper fails, the nodes that are known stay.

name    = "proxy1"
cluster = "example"

listener {
  address = "unix:///run/logproxy/logproxy.sock"
}

discovery "zookeeper" {
  servers = ["zk1.example.net:2181", "zk2.example.net:2181", "zk3.example.net:2181"]
  path    = "/discovery/prod/logd"

  # For a path that not everybody may read, and over TLS, which ZooKeeper has on a port of
  # its own (secureClientPort):
  #
  #   user          = "logproxy"
  #   password_file = "/etc/logproxy/zookeeper.password"
  #
  #   tls {
  #     ca_file   = "/etc/logproxy/zookeeper/ca.pem"
  #     cert_file = "/etc/logproxy/zookeeper/proxy1.pem"
  #     key_file  = "/etc/logproxy/zookeeper/proxy1-key.pem"
  #   }
}

upstream {
  tls {
    ca_file   = "/etc/logproxy/tls/ca.pem"
    cert_file = "/etc/logproxy/tls/proxy1.pem"
    key_file  = "/etc/logproxy/tls/proxy1-key.pem"
  }
}
