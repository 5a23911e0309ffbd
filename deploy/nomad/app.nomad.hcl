# A program that talks to the log as if it were local, with a logproxy as sidecar:
#
#   nomad job run -var image=<registry>/logd:<tag> app.nomad.hcl
#
# Certificate, key and the rest are in the Nomad variable nomad/jobs/tail, as
# docs/ops/nomad.md puts them there.

variable "image" {
  type        = string
  description = "The image made from deploy/docker/Dockerfile."
}

job "tail" {
  type = "service"

  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "10s"
    healthy_deadline = "10m"
  }

  group "app" {
    count = 2

    # One loopback for all of the group, and not the host's.
    network {
      mode = "bridge"
      port "gossip" { to = 8411 }
      port "admin" { to = 8412 }
    }

    service {
      name     = "logproxy-admin"
      provider = "nomad"
      port     = "admin"
      task     = "logproxy"

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

      # Runs before the program, and is stopped after it.
      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      # SIGTERM drains; longer than drain_timeout.
      kill_signal  = "SIGTERM"
      kill_timeout = "45s"

      config {
        image           = var.image
        command         = "logproxy"
        args            = ["agent", "-config", "/local/logproxy.hcl"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
      }

      env {
        # Where other members reach it, from outside the group's network.
        LOGPROXY_GOSSIP_ADVERTISE_ADDRESS = "${NOMAD_ADDR_gossip}"
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
          {{- with nomadVar "nomad/jobs/tail" }}{{ .ca }}{{ end }}
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
          {{- with nomadVar "nomad/jobs/tail" }}{{ .key }}{{ end }}
        EOT
      }

      template {
        destination   = "secrets/proxy.pem"
        perms         = "0644"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-EOT
          {{- with nomadVar "nomad/jobs/tail" }}{{ .cert }}{{ end }}
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
          {{- with nomadVar "nomad/jobs/tail" }}{{ .gossip }}{{ end }}
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

    # The program starts when the log can be used: a sidecar that runs need not be
    # ready yet.
    task "wait" {
      driver = "docker"
      user   = "65532:65532"

      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      config {
        image           = var.image
        command         = "logproxy"
        args            = ["wait", "-timeout", "5m"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }

    # Yours. It talks to 127.0.0.1:8410 and needs nothing of ours.
    task "tail" {
      driver = "docker"
      user   = "65532:65532"
      leader = true # when it ends, so does the sidecar, and it is stopped first

      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        image           = var.image
        command         = "logd"
        args            = ["consume", "-follow"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
