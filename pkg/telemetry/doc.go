// Package telemetry is what a process tells its operator: the root of its logs,
// its metrics registry, and the admin HTTP server that answers for both.
//
// Invariant: nothing here is global. Registry, sink and server are values, so
// twenty nodes share a test process; only a main hands a Sink to go-metrics,
// whose default instance raft and serf write to.
//
// cmd/logd, cmd/logproxy and the compositions use it. It knows nothing of logs,
// Raft or proxies: readiness and status are functions given to it. It never
// serves pprof. The package is importable and not promised to stay as it is.
package telemetry
