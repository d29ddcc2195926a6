{{/* At most 46 characters, so that pod names contain the whole name. The alerts select pods by it. A longer name ends with a
hash, because two of them may begin with the same characters. */}}
{{- define "worker.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- gt (len $name) 46 | ternary (printf "%s-%s" ($name | trunc 37 | trimSuffix "-") ($name | sha256sum | trunc 8)) $name -}}
{{- end }}

{{- define "worker.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: worker
{{- end }}

{{- define "worker.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimAll "-._" | quote }}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | trunc 63 | trimAll "-._" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end }}

{{- define "worker.image" -}}
{{- $tag := .Values.image.tag | default (ternary "" (.Chart.AppVersion | replace "+" "_") (ne .Values.image.digest "")) -}}
{{ .Values.image.repository }}{{ with $tag }}:{{ . }}{{ end }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "worker.environment" -}}
JOBNIK_BASE_URL: {{ .Values.env.jobnik.baseUrl | quote }}
WORKER_CONCURRENCY: {{ .Values.env.worker.concurrency | int64 | quote }}
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
{{ $name | quote }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* The settings, volumes and trusted certificates of both containers. Each template ends with a list to append to. */}}
{{- define "worker.settings" -}}
{{- if .Values.ca.secret -}}
env:
  {{- include "worker.certificates" . | nindent 2 }}
{{ end -}}
envFrom:
  {{- include "worker.configMap" . | nindent 2 }}
{{- end }}

{{- define "worker.certificates" -}}
- name: SSL_CERT_FILE
  value: /etc/jobnik-ca/ca.crt
{{- end }}

{{- define "worker.configMap" -}}
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
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) | atoi -}}
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
serviceAccountName: {{ .Values.serviceAccount.name | default (include "worker.name" .) | quote }}
securityContext:
  {{- include "worker.merged" (list (include "worker.podSecurity" .) .Values.podSecurityContext) | nindent 2 }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
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

{{/* Kubernetes requires the request of an extended resource, such as a GPU, to equal its limit. */}}
{{- define "worker.resources" -}}
requests:
  cpu: {{ .cpu | toJson }}
  memory: {{ .memory }}
  {{- range $name, $amount := .extended }}
  {{ $name | quote }}: {{ $amount | toJson }}
  {{- end }}
limits:
  memory: {{ .memory }}
  {{- range $name, $amount := .extended }}
  {{ $name | quote }}: {{ $amount | toJson }}
  {{- end }}
{{- end }}

{{- define "worker.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "worker.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Fields in YAML, with the fields of a mapping in place of those of the same name. */}}
{{- define "worker.merged" -}}
{{- $fields := first . | fromYaml -}}
{{- range $name, $value := last . }}{{ $_ := set $fields $name $value }}{{ end -}}
{{- toYaml $fields -}}
{{- end }}

{{/* Containers of the user's own, with the security context of the worker's container unless they set another. */}}
{{- define "worker.containers" -}}
{{- $security := include "worker.containerSecurity" . -}}
{{- range . }}
{{- $own := include "worker.merged" (list $security .securityContext) | fromYaml }}
- {{ set (deepCopy .) "securityContext" $own | toYaml | indent 2 | trim }}
{{- end }}
{{- end }}
