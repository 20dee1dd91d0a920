{{/* The release's name, with the chart's in it. A Kubernetes name has at most 63 characters. */}}
{{- define "skmem-exporter.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What the DaemonSet finds its pods by: never to change. */}}
{{- define "skmem-exporter.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "skmem-exporter.labels" -}}
{{ include "skmem-exporter.selector" . }}
app.kubernetes.io/component: exporter
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion }}
{{- end -}}

{{/* host:port; an IPv6 address in brackets. */}}
{{- define "skmem-exporter.listenAddress" -}}
{{- $host := .Values.listenHost -}}
{{- printf "%s:%d" (ternary (printf "[%s]" $host) $host (contains ":" $host)) (int .Values.port) -}}
{{- end -}}
