package config

import "net/url"

// Telemetry is where traces go, and how many.
type Telemetry struct {
	// The URL of an OTLP/gRPC collector: http://host:4317 for plaintext, or
	// https://. Empty: what OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT
	// says, and without those there are no traces.
	OTLPEndpoint string `hcl:"otlp_endpoint,optional"`
	// The part of the traces that begin here which is recorded, 0 to 1. A trace that a client
	// began is recorded when the client says so.
	SampleRatio float64 `hcl:"sample_ratio,optional"`
}

func defaultTelemetry() Telemetry { return Telemetry{SampleRatio: 1} }

func (v *verdict) telemetry(t Telemetry) {
	if u, err := url.Parse(t.OTLPEndpoint); t.OTLPEndpoint != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		v.add("telemetry.otlp_endpoint", "%q: a URL, like http://127.0.0.1:4317 (plaintext) or https://collector.example.net:4317", t.OTLPEndpoint)
	}
	if !(t.SampleRatio >= 0 && t.SampleRatio <= 1) {
		v.add("telemetry.sample_ratio", "%v: from 0, no trace, to 1, all", t.SampleRatio)
	}
}
