# Prometheus, scraping the nodes and proxies that the other jobs have registered.
#
#   nomad job run prometheus.nomad.hcl

variable "image" {
  type    = string
  default = "prom/prometheus:v3.5.0"
}

job "prometheus" {
  type = "service"

  group "prometheus" {
    count = 1

    # Its data goes with the allocation where it can.
    ephemeral_disk {
      size    = 5000
      sticky  = true
      migrate = true
    }

    network {
      port "http" { static = 9090 }
    }

    service {
      name     = "prometheus"
      provider = "nomad"
      port     = "http"

      check {
        type     = "http"
        path     = "/-/ready"
        interval = "10s"
        timeout  = "2s"
      }
    }

    task "prometheus" {
      driver = "docker"

      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        image = var.image
        ports = ["http"]
        args = [
          "--config.file=/local/prometheus.yml",
          "--storage.tsdb.path=/alloc/data/prometheus",
          "--storage.tsdb.retention.size=4GB",
        ]
      }

      # Read again, with the new targets, when nodes and proxies come and go.
      template {
        destination   = "local/prometheus.yml"
        data          = file("prometheus.yml.tmpl")
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      resources {
        cpu    = 500
        memory = 1024
      }
    }
  }
}
