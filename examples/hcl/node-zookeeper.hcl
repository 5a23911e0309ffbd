# Node 1 of three, as in cluster/node1.hcl, that registers itself in ZooKeeper too, for
# proxies with discovery "zookeeper" and for what else reads Finagle's serversets. If
# ZooKeeper fails, the node serves as ever.

name    = "node1"
cluster = "example"

data_dir         = "/var/lib/logd/data"
bind_addr        = "0.0.0.0"
advertise_addr   = "node1.example.net" # and so it is registered
bootstrap_expect = 3
retry_join       = ["node1.example.net:8401", "node2.example.net:8401", "node3.example.net:8401"]

gossip_key_file = "/etc/logd/gossip.key"

register "zookeeper" {
  servers = ["zk1.example.net:2181", "zk2.example.net:2181", "zk3.example.net:2181"]
  path    = "/discovery/prod/logd"

  # Only this user changes or removes what the node makes, and everybody reads it.
  user          = "logd"
  password_file = "/etc/logd/zookeeper.password"

  session_timeout = "10s" # how long a node that was killed stays registered
}

tls {
  ca_file   = "/etc/logd/tls/ca.pem"
  cert_file = "/etc/logd/tls/node1.pem"
  key_file  = "/etc/logd/tls/node1-key.pem"
}
