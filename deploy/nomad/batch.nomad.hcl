# Work that ends: it reads the log as it stands now and is done, and with it the
# sidecar and the job.
#
#   nomad job run -var image=<registry>/logd:<tag> batch.nomad.hcl
#
# Certificate, key and CA are in the Nomad variable nomad/jobs/export, as
# docs/ops/nomad.md puts them there.

variable "image" {
  type        = string
  description = "The image made from deploy/docker/Dockerfile."
}

job "export" {
  type = "batch"

  group "export" {
    # One loopback for all of the group, and not the host's.
    network {
      mode = "bridge"
    }

    restart {
      attempts = 3
      interval = "10m"
      delay    = "5s"
      mode     = "fail"
    }

    reschedule {
      attempts  = 3
      interval  = "1h"
      unlimited = false
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
        GOMEMLIMIT = "230MiB" # nine tenths of memory
      }

      template {
        destination = "local/logproxy.hcl"
        data        = file("batch.hcl.tmpl")
        change_mode = "restart"
      }

      template {
        destination   = "secrets/ca.pem"
        perms         = "0644"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-EOT
          {{- with nomadVar "nomad/jobs/export" }}{{ .ca }}{{ end }}
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
          {{- with nomadVar "nomad/jobs/export" }}{{ .key }}{{ end }}
        EOT
      }

      template {
        destination   = "secrets/proxy.pem"
        perms         = "0644"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-EOT
          {{- with nomadVar "nomad/jobs/export" }}{{ .cert }}{{ end }}
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
    task "export" {
      driver = "docker"
      user   = "65532:65532"
      leader = true # when it ends, the sidecar is stopped and the job is complete

      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        image           = var.image
        command         = "logd"
        args            = ["consume", "-from", "earliest", "-format", "json"]
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
