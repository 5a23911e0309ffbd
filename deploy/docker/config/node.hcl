# Shared by the three nodes of docker-compose.yml; what differs (name, addresses,
# certificate) is in their environment, and the gossip key is in .env.

cluster          = "compose"
data_dir         = "/var/lib/logd/data"
bootstrap_expect = 3
retry_join       = ["node1:8401", "node2:8401", "node3:8401"]
log_format       = "json"

tls {
  ca_file = "/etc/logd/tls/ca.pem"
}
