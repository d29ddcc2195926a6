{{/* At most 53 characters. A longer name ends with a hash, because two of them may begin with the same characters. */}}
{{- define "manager.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- gt (len $name) 53 | ternary (printf "%s-%s" ($name | trunc 44 | trimSuffix "-") ($name | sha256sum | trunc 8)) $name -}}
{{- end }}

{{- define "manager.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: manager
{{- end }}

{{- define "manager.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimAll "-._" | quote }}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | trunc 63 | trimAll "-._" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end }}

{{/* The port of a URL. */}}
{{- define "manager.port" -}}
{{- $url := urlParse . -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end }}

{{/* The parts that all pods share: what the "restricted" Pod Security Standard requires, and where the pods may run. There is
no user id, because OpenShift assigns one; elsewhere the image's user applies. */}}
{{- define "manager.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
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

{{/* A pod that runs to completion. It has no podAntiAffinity, because managers may already run on every node. */}}
{{- define "manager.endingPod" -}}
{{ include "manager.pod" . }}
{{- with .Values.affinity.nodeAffinity }}
affinity:
  nodeAffinity:
    {{- toYaml . | nindent 4 }}
{{- end }}
restartPolicy: Never
{{- end }}

{{/* A container of the manager's image, without its command. */}}
{{- define "manager.container" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default (.Chart.AppVersion | replace "+" "_")) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "manager.resources" -}}
requests:
  cpu: {{ .cpu }}
  memory: {{ .memory }}
limits:
  memory: {{ .memory }}
{{- end }}

{{- define "manager.databaseUrl" -}}
- name: JOBNIK_MANAGER_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.secret | quote }}
      key: {{ .Values.database.key | quote }}
{{- end }}

{{/* The egress rules of all pods: DNS, PostgreSQL, and extraEgress. A policy applies to the port of the pod, not of the
Service: OpenShift's DNS pods listen on 5353. */}}
{{- define "manager.egress" -}}
- ports:
    {{- range list 53 5353 }}
    - port: {{ . }}
      protocol: UDP
    - port: {{ . }}
      protocol: TCP
    {{- end }}
- ports:
    - port: {{ .Values.networkPolicy.databasePort | int64 }}
  {{- with .Values.networkPolicy.database }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
