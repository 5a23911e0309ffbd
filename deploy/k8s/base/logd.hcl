# Shared by the pods of the StatefulSet; name, address and certificate of each
# are in its environment.

cluster          = "k8s"
data_dir         = "/var/lib/logd/data" # the volume's root may hold lost+found
bootstrap_expect = 3
retry_join       = ["logd-0.logd:8401", "logd-1.logd:8401", "logd-2.logd:8401"]
gossip_key_file  = "/etc/logd/gossip/gossip.key"
log_format       = "json"

tls {
  ca_file = "/etc/logd/tls/ca.pem"
}

raft {
  heartbeat_timeout = "1s" # volumes over a network sync slowly; 300ms on local disks
}

drain_timeout = "30s" # terminationGracePeriodSeconds is longer
