{{/* At most 46 characters, so that pod names contain the whole name. The alerts select pods by it. */}}
{{- define "worker.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 46 | trimSuffix "-" -}}
{{- end }}

{{- define "worker.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: worker
{{- end }}

{{- define "worker.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end }}

{{- define "worker.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "worker.environment" -}}
JOBNIK_BASE_URL: {{ .Values.env.jobnik.baseUrl | quote }}
WORKER_CONCURRENCY: {{ .Values.env.worker.concurrency | quote }}
WORKER_RETRY_INITIAL_DELAY_MS: {{ .Values.env.worker.retryInitialDelayMs | int64 | quote }}
WORKER_RETRY_MAX_DELAY_MS: {{ .Values.env.worker.retryMaxDelayMs | int64 | quote }}
WORKER_DRAIN_SECONDS: {{ .Values.drainSeconds | int64 | quote }}
LOG_LEVEL: {{ .Values.env.logLevel | quote }}
{{- with .Values.env.telemetry.tracingUrl }}
TELEMETRY_TRACING_URL: {{ . | quote }}
{{- if not (hasKey $.Values.env.extra "OTEL_SERVICE_NAME") }}
OTEL_SERVICE_NAME: {{ $.Chart.Name | quote }}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.env.extra }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* The settings, volumes and trusted certificates of both containers. Each template ends with a list to append to. */}}
{{- define "worker.settings" -}}
{{- if .Values.ca.secret -}}
env:
  - name: SSL_CERT_FILE
    value: /etc/jobnik-ca/ca.crt
{{ end -}}
envFrom:
  - configMapRef:
      name: {{ include "worker.name" . | quote }}
{{- end }}

{{- define "worker.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .Values.ca.secret }}
- name: ca
  mountPath: /etc/jobnik-ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "worker.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if .Values.ca.secret }}
- name: ca
  secret:
    secretName: {{ .Values.ca.secret | quote }}
    items:
      - key: {{ .Values.ca.key | quote }}
        path: ca.crt
{{- end }}
{{- end }}

{{/* The port of a URL. */}}
{{- define "worker.port" -}}
{{- $url := urlParse . -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end }}

{{/* The manager's address for callers in other namespaces, where the name of a Service needs its namespace. */}}
{{- define "worker.managerFromAnywhere" -}}
{{- $url := urlParse (trimSuffix "/" .Values.env.jobnik.baseUrl) -}}
{{- $host := regexReplaceAll "^([a-z0-9-]+)(:[0-9]+)?$" $url.host (printf "${1}.%s.svc${2}" .Release.Namespace) -}}
{{- urlJoin (set $url "host" $host) -}}
{{- end }}

{{/* The parts that both pods share: what the "restricted" Pod Security Standard requires, and where the pods may run. There is
no user id, because OpenShift assigns one; elsewhere the image's user applies. */}}
{{- define "worker.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
serviceAccountName: {{ include "worker.name" . | quote }}
securityContext:
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "worker.resources" -}}
requests:
  cpu: {{ .cpu }}
  memory: {{ .memory }}
limits:
  memory: {{ .memory }}
{{- end }}

{{- define "worker.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
