{{- define "logd.name" -}}
{{- if contains "logd" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-logd" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "logd.selector" -}}
app.kubernetes.io/name: logd
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: storage
{{- end }}

{{- define "logd.gatewaySelector" -}}
app.kubernetes.io/name: logproxy
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "logd.labels" -}}
app.kubernetes.io/part-of: logd
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "logd.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* The pods' names and ports, in quotes, for a list. */ -}}
{{- define "logd.gossipAddresses" -}}
{{- $name := include "logd.name" . }}
{{- range $i := until (int .Values.nodes.replicas) }}{{ if $i }}, {{ end }}"{{ $name }}-{{ $i }}.{{ $name }}:8401"{{ end }}
{{- end }}

{{- /* Longer than drain_timeout, and by more than the drain_delay of 5s of the gateway. */ -}}
{{- define "logd.grace" -}}
{{- $drain := int .Values.settings.drainTimeoutSeconds }}{{ add $drain (max 15 (div $drain 2)) }}
{{- end }}

{{- define "logd.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "logd.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "logd.issuer" -}}
{{- with .Values.tls.certManager.issuer }}
{{- if .name }}
kind: {{ .kind }}
name: {{ .name }}
{{- else }}
kind: Issuer
name: {{ include "logd.name" $ }}-ca
{{- end }}
{{- end }}
{{- end }}
