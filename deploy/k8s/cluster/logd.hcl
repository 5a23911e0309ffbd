# Shared by the pods of the StatefulSet; name, address and certificate of each
# are in its environment.

cluster          = "k8s"
data_dir         = "/var/lib/logd/data"
bootstrap_expect = 3
retry_join       = ["logd-0.logd:8401", "logd-1.logd:8401", "logd-2.logd:8401"]
gossip_key_file  = "/etc/logd/secret/gossip.key"
log_format       = "json"

tls {
  ca_file = "/etc/logd/secret/ca.pem"
}
