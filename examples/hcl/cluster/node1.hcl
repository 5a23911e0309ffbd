# Node 1 of three. The files of the three differ in name, addresses and
# certificate only. Start them in any order: with bootstrap_expect = 3 they wait
# for each other once, agree on the first configuration, and never do so again.

name    = "node1"
cluster = "example"

data_dir         = "/var/lib/logd/data"
bind_addr        = "0.0.0.0"
advertise_addr   = "node1.example.net" # a DNS name lets the address behind it change
bootstrap_expect = 3
retry_join       = ["node1.example.net:8401", "node2.example.net:8401", "node3.example.net:8401"]

gossip_key_file = "/etc/logd/gossip.key"

ports {
  rpc    = 8400 # gRPC and Raft, both mutual TLS
  gossip = 8401 # TCP and UDP
  admin  = 8402 # /metrics, /healthz, /readyz
}

tls {
  ca_file   = "/etc/logd/tls/ca.pem"
  cert_file = "/etc/logd/tls/node1.pem"
  key_file  = "/etc/logd/tls/node1-key.pem"
}

raft {
  # Also the election timeout and the leader's lease. On disks that sync in tens
  # of milliseconds, or over long distances, use "1s".
  heartbeat_timeout = "300ms"
}

log {
  segment_size    = "64MiB"
  cache_size      = "64MiB"
  max_record_size = "1020KiB" # key and headers included; this is the most there can be
  reserve         = "1GiB"    # of the disk, kept free: produces are refused before it is full
  scrub_rate      = "4MiB"    # a second, read in the background to find damage; 0: never
}

# What goes, oldest first; without this everything is kept. Say the same on every
# node: the one that leads decides.
retain {
  age  = "168h"  # since the leader took a record; paused while clocks disagree
  size = "50GiB" # of segment files on the leader's disk
}
