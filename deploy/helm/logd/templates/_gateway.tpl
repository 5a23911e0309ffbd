{{- define "logd.gatewayConfig" -}}
cluster = {{ .Values.clusterName | quote }}

listener {
  address = "0.0.0.0:8410"
  tls { # reached from other machines, so clients need a certificate
    ca_file   = "/etc/logproxy/tls/ca.crt"
    cert_file = "/etc/logproxy/tls/tls.crt"
    key_file  = "/etc/logproxy/tls/tls.key"
  }
}

gossip {
  retry_join = [{{ include "logd.gossipAddresses" . }}]
  key_file   = "/etc/logproxy/gossip/gossip.key"
}

admin {
  address = "0.0.0.0:8412" # the kubelet's probes and Prometheus come from outside
}

upstream {
  tls {
    ca_file   = "/etc/logproxy/tls/ca.crt"
    cert_file = "/etc/logproxy/tls/tls.crt"
    key_file  = "/etc/logproxy/tls/tls.key"
  }
}

limits {
  memory = "{{ div (mul 5 (int .Values.gateway.memoryMiB)) 8 }}MiB"
}

drain_delay   = "5s" # until the Service has noticed that the pod goes
drain_timeout = "{{ .Values.settings.drainTimeoutSeconds }}s"
log_level     = {{ .Values.settings.logLevel | quote }}
log_format    = "json"
{{- end }}
