{{/* What to do about each stands in RUNBOOK.md, under its name. */}}
{{- define "worker.alerts" -}}
{{- $pods := printf "namespace=%q,pod=~%q" .Release.Namespace (printf "%s-.*" (include "worker.name" .)) -}}
{{- $types := join "|" .Values.stageTypes | replace "." "\\." -}}
{{- $runbook := .Values.alerts.runbookUrl -}}
- alert: JobnikWorkerTasksFail
  expr: |
    sum by (namespace, stage_type) (rate(jobnik_sdk_worker_tasks_failed_total{ {{- $pods -}} }[10m]))
      > 0.2 * sum by (namespace, stage_type) (rate(jobnik_sdk_worker_task_duration_seconds_count{ {{- $pods -}} }[10m]))
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: "More than a fifth of the attempts at {{ "{{" }} $labels.stage_type {{ "}}" }} fail"
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkertasksfail
    {{- end }}
- alert: JobnikWorkerBreakerOpen
  expr: |
    max by (namespace, pod, stage_type, breaker) (jobnik_sdk_worker_circuit_breaker_state{ {{- $pods -}} }) == 2
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: "{{ "{{" }} $labels.pod {{ "}}" }} takes no {{ "{{" }} $labels.stage_type {{ "}}" }}: its {{ "{{" }} $labels.breaker {{ "}}" }} breaker is open"
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkerbreakeropen
    {{- end }}
- alert: JobnikWorkerIdleBesideBacklog
  expr: |
    max by (stage_type) (jobnik_oldest_waiting_age_seconds{stage_type=~{{ $types | quote }}}) > 1800
      unless on (stage_type) sum by (stage_type) (increase(jobnik_sdk_worker_tasks_completed_total{ {{- $pods -}} }[30m])) > 0
  for: 5m
  labels: {severity: critical}
  annotations:
    summary: "No {{ "{{" }} $labels.stage_type {{ "}}" }} was completed for half an hour, and some wait"
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkeridlebesidebacklog
    {{- end }}
- alert: JobnikWorkerReportsRefused
  expr: |
    sum by (namespace, stage_type) (rate(jobnik_sdk_consumer_task_updates_total{result="failure",{{ $pods }}}[10m]))
      > 0.05 * sum by (namespace, stage_type) (rate(jobnik_sdk_consumer_task_updates_total{ {{- $pods -}} }[10m]))
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: "The manager refuses reports about {{ "{{" }} $labels.stage_type {{ "}}" }}: leases are lost"
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkerreportsrefused
    {{- end }}
- alert: JobnikWorkerCannotReachManager
  expr: |
    sum by (namespace) (rate(jobnik_sdk_http_request_duration_seconds_count{status_code="none",{{ $pods }}}[5m]))
      > 0.5 * sum by (namespace) (rate(jobnik_sdk_http_request_duration_seconds_count{ {{- $pods -}} }[5m]))
  for: 5m
  labels: {severity: critical}
  annotations:
    summary: "Half of the requests to the manager get no answer"
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkercannotreachmanager
    {{- end }}
{{- end }}
