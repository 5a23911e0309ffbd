# A cluster of three, each node on a host of its own. From this folder:
#
#   nomad job run -var image=<registry>/logd:<tag> -var 'join=["10.0.0.1:8401","10.0.0.2:8401","10.0.0.3:8401"]' logd.nomad.hcl
#
# Every host that may run one has two host volumes in its client configuration:
# logd-data (empty, writable by uid 65532) and logd-config (read only), with
# gossip.key, tls/ca.pem, and in tls/node.pem and tls/node-key.pem the storage
# certificate that belongs to this host and no other.

variable "image" {
  type        = string
  description = "The image made from deploy/docker/Dockerfile."
}

variable "join" {
  type        = list(string)
  description = "Gossip addresses of the hosts, at least one of which is up."
}

job "logd" {
  type = "service"

  # One at a time, and the next only when this one is ready again: with three
  # nodes, a second one missing would stop the log.
  update {
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "10s"
    healthy_deadline  = "10m"
    progress_deadline = "0"
  }

  group "node" {
    count = 3

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    # The data is on the host: a node that moved would be a new node.
    volume "data" {
      type   = "host"
      source = "logd-data"
    }

    volume "config" {
      type      = "host"
      source    = "logd-config"
      read_only = true
    }

    network {
      mode = "host"
      port "rpc" { static = 8400 }
      port "gossip" { static = 8401 }
      port "admin" { static = 8402 }
    }

    service {
      name     = "logd"
      provider = "nomad"
      port     = "rpc"
    }

    service {
      name     = "logd-admin"
      provider = "nomad"
      port     = "admin"

      check {
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "2s"
      }
    }

    restart {
      attempts = 10
      interval = "10m"
      delay    = "1s"
      mode     = "delay"
    }

    task "logd" {
      driver = "docker"

      # Longer than drain_timeout: a stop drains, hands leadership on and ends.
      kill_timeout = "45s"

      config {
        image        = var.image
        network_mode = "host"
        command      = "logd"
        args         = ["agent", "-config", "/local/logd.hcl"]
      }

      env {
        LOGD_ADVERTISE_ADDR = "${attr.unique.network.ip-address}"
        LOGD_RETRY_JOIN     = join(",", var.join)
      }

      template {
        destination = "local/logd.hcl"
        data        = file("logd.hcl")
      }

      volume_mount {
        volume      = "data"
        destination = "/var/lib/logd"
      }

      volume_mount {
        volume      = "config"
        destination = "/etc/logd"
        read_only   = true
      }

      resources {
        cpu    = 1000
        memory = 512
      }
    }
  }
}
