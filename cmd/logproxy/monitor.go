package main

import "github.com/logd-io/logd/internal/cli"

func monitorCommand() cli.Command { return cli.MonitorCommand("proxy", adminFlags) }
