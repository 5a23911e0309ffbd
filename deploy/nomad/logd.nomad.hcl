# A cluster of three, each node on a host of its own. From this folder:
#
#   nomad job run -var image=<registry>/logd:<tag> -var 'join=["10.0.0.1:8401","10.0.0.2:8401","10.0.0.3:8401"]' logd.nomad.hcl
#
# The hosts' clients are configured as in client.nomad.hcl. A node is called as its
# host's client is; its certificate, key and the rest are in the Nomad variable
# nomad/jobs/logd, as docs/ops/nomad.md puts them there.

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
    canary            = 0 # a canary would need a fourth host, and be a fourth node
    health_check      = "checks"
    min_healthy_time  = "10s"
    healthy_deadline  = "10m"
    progress_deadline = "0"
    auto_revert       = false # a node that did not come up needs a look, not an older one
  }

  group "node" {
    count = 3

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    # Likewise when hosts are drained.
    migrate {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "10s"
      healthy_deadline = "10m"
    }

    # The data is on the host: a node that moved would be a new node.
    volume "data" {
      type   = "host"
      source = "logd-data"
    }

    # A host that is out of reach keeps its node: the others go on without it, and
    # it catches up.
    disconnect {
      lost_after = "24h"
      replace    = false
      reconcile  = "keep_original"
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
      name     = "logd-gossip"
      provider = "nomad"
      port     = "gossip"
    }

    service {
      name     = "logd-admin"
      provider = "nomad"
      port     = "admin"

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "2s"
      }

      # Alive, whether or not there is a quorum: only this restarts a node.
      check {
        name     = "alive"
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "5s"

        check_restart {
          limit = 6
          grace = "10m" # opening takes as long as the log's tail needs
        }
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
      user   = "65532:65532"

      # SIGTERM drains and hands leadership on; longer than drain_timeout.
      kill_signal  = "SIGTERM"
      kill_timeout = "45s"

      config {
        image           = var.image
        network_mode    = "host"
        command         = "logd"
        args            = ["agent", "-config", "/local/logd.hcl"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
      }

      env {
        LOGD_NAME           = "${node.unique.name}"
        LOGD_ADVERTISE_ADDR = "${attr.unique.network.ip-address}"
        LOGD_RETRY_JOIN     = join(",", var.join)
        GOMEMLIMIT          = "920MiB" # nine tenths of memory
      }

      template {
        destination = "local/logd.hcl"
        data        = file("logd.hcl")
        change_mode = "restart"
      }

      # Certificates are read again on SIGHUP, and without a restart.
      template {
        destination   = "secrets/ca.pem"
        perms         = "0644"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-EOT
          {{- with nomadVar "nomad/jobs/logd" }}{{ .ca }}{{ end }}
        EOT
      }

      template {
        destination   = "secrets/node-key.pem"
        perms         = "0600"
        uid           = 65532
        gid           = 65532
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-EOT
          {{- with nomadVar "nomad/jobs/logd" }}{{ index . (printf "%s-key" (env "node.unique.name")) }}{{ end }}
        EOT
      }

      template {
        destination   = "secrets/node.pem"
        perms         = "0644"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-EOT
          {{- with nomadVar "nomad/jobs/logd" }}{{ index . (env "node.unique.name") }}{{ end }}
        EOT
      }

      # A running node's keys are changed with `logd keyring`; the file is for its start.
      template {
        destination = "secrets/gossip.key"
        perms       = "0600"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/logd" }}{{ .gossip }}{{ end }}
        EOT
      }

      volume_mount {
        volume      = "data"
        destination = "/var/lib/logd"
      }

      resources {
        cpu    = 1000
        memory = 1024
      }
    }
  }
}
