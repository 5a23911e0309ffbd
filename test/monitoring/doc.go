// Package monitoring makes what Prometheus and Grafana load: the rules in
// deploy/prometheus and the dashboards in deploy/grafana. They are Go values here, so
// that a test can hold every metric and label in them against docs/ops/metrics.md,
// and every alert against docs/ops/monitoring.md; `go test ./test/monitoring -update`
// writes the files. Nothing that ships imports it.
package monitoring
