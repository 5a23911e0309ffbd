# /etc/logproxy/logproxy.hcl: a proxy for the programs of this machine, in plaintext
# on loopback. `logproxy validate /etc/logproxy/logproxy.hcl` checks it.
#
# To be filled in before the first start:
#   1. retry_join: the nodes of the cluster
#   2. /etc/logproxy/tls: ca.pem, proxy.pem and proxy-key.pem, made by `logd tls`
#   3. /etc/logproxy/gossip.key: the cluster's
# The two keys are to be owned by root:logproxy with mode 0640.
# /usr/share/doc/logproxy/README.Debian has the commands.

# What it remembers over a restart: the nodes it knew, for when nobody of retry_join
# answers, and its cluster, so that the log says when that is another.
data_dir = "/var/lib/logproxy"

listener {
  # Or a unix socket, which programs in group logproxy can open:
  # address = "unix:///run/logproxy/logproxy.sock"
  address = "127.0.0.1:8410"
}

gossip {
  retry_join = ["node1.example.net:8401", "node2.example.net:8401", "node3.example.net:8401"]
  key_file   = "/etc/logproxy/gossip.key"
}

upstream {
  tls {
    ca_file   = "/etc/logproxy/tls/ca.pem"
    cert_file = "/etc/logproxy/tls/proxy.pem"
    key_file  = "/etc/logproxy/tls/proxy-key.pem"
  }
}
