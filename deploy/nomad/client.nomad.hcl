# What every Nomad client that may run these jobs has in its own configuration.
client {
  enabled = true

  # The default of 30s would cut a drain short: the jobs ask for more.
  max_kill_timeout = "2m"

  # Empty, and writable by uid 65532. A node's data stays on its host.
  host_volume "logd-data" {
    path = "/var/lib/logd"
  }
}
