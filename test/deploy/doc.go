// Package deploy tests what is in deploy: that the files are what Kubernetes, Helm,
// Nomad and Grafana take, and that what they say of logd and logproxy (commands, flags,
// ports, probes, names, files) is true of the programs. Package program has the
// programs, k8s, nomad and grafana the tests. Nomad's own parser is in test/nomad.
//
// It is a module of its own, so that none of what it imports is a dependency of
// what ships.
package deploy
