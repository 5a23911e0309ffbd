# One logproxy a host, for programs that Nomad does not run, or that share the host's
# network: they talk to 127.0.0.1:8410. All of them are one principal.
#
#   nomad job run -var image=<registry>/logd:<tag> system.nomad.hcl
#
# Certificate, key and the rest are in the Nomad variable nomad/jobs/logproxy, as
# docs/ops/nomad.md puts them there.

variable "image" {
  type        = string
  description = "The image made from deploy/docker/Dockerfile."
}

job "logproxy" {
  type = "system"

  # A host after the other: produces of its programs fail while its proxy is away.
  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "10s"
    healthy_deadline = "5m"
  }

  group "logproxy" {
    network {
      mode = "host"
      port "gossip" { static = 8411 }
      port "admin" { static = 8412 }
    }

    service {
      name     = "logproxy-admin"
      provider = "nomad"
      port     = "admin"

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "2s"
      }

      check {
        name     = "alive"
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "5s"

        check_restart {
          limit = 6
          grace = "1m"
        }
      }
    }

    restart {
      attempts = 10
      interval = "10m"
      delay    = "1s"
      mode     = "delay"
    }

    task "logproxy" {
      driver = "docker"
      user   = "65532:65532"

      # SIGTERM drains; longer than drain_timeout.
      kill_signal  = "SIGTERM"
      kill_timeout = "45s"

      config {
        image           = var.image
        network_mode    = "host"
        command         = "logproxy"
        args            = ["agent", "-config", "/local/logproxy.hcl"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
      }

      env {
        LOGPROXY_GOSSIP_ADVERTISE_ADDRESS = "${attr.unique.network.ip-address}"
        GOMEMLIMIT                        = "230MiB" # nine tenths of memory
      }

      template {
        destination = "local/logproxy.hcl"
        data        = file("logproxy.hcl")
        change_mode = "restart"
      }

      template {
        destination   = "secrets/ca.pem"
        perms         = "0644"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-EOT
          {{- with nomadVar "nomad/jobs/logproxy" }}{{ .ca }}{{ end }}
        EOT
      }

      template {
        destination   = "secrets/proxy-key.pem"
        perms         = "0600"
        uid           = 65532
        gid           = 65532
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-EOT
          {{- with nomadVar "nomad/jobs/logproxy" }}{{ .key }}{{ end }}
        EOT
      }

      template {
        destination   = "secrets/proxy.pem"
        perms         = "0644"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-EOT
          {{- with nomadVar "nomad/jobs/logproxy" }}{{ .cert }}{{ end }}
        EOT
      }

      # A proxy reads it when it starts; `logd keyring` changes it in those that run.
      template {
        destination = "secrets/gossip.key"
        perms       = "0600"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/logproxy" }}{{ .gossip }}{{ end }}
        EOT
      }

      # Whom to join at the start; gossip itself knows better from then on.
      template {
        destination = "local/join.env"
        env         = true
        change_mode = "noop"
        data        = <<-EOT
          LOGPROXY_GOSSIP_RETRY_JOIN={{ range $i, $n := nomadService "logd-gossip" }}{{ if $i }},{{ end }}{{ $n.Address }}:{{ $n.Port }}{{ end }}
        EOT
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
