{{/* RUNBOOK.md has a section for each alert, under the alert's name. */}}
{{- define "worker.alerts" -}}
{{- /* A Deployment's pods have two more parts in their names. So this excludes releases whose names begin alike. */ -}}
{{- $pods := printf "namespace=%q,pod=~%q" .Release.Namespace (printf "%s-[^-]+-[^-]+" (include "worker.name" .)) -}}
{{- $types := list -}}
{{- range .Values.stageTypes -}}
{{- $types = append $types (regexQuoteMeta .) -}}
{{- end -}}
{{- $queues := printf "stage_type=~%q" (join "|" $types) -}}
{{- with .Values.alerts.managerNamespace -}}
{{- $queues = printf "%s,namespace=%q" $queues . -}}
{{- end -}}
{{- $minutes := .Values.alerts.backlogMinutes | int64 -}}
{{- $runbook := .Values.alerts.runbookUrl -}}
- alert: JobnikWorkerTasksFail
  # Attempts whose tasks are tried again do not count, unless they are most of all attempts. The first condition is
  # failed - retried > 0.2 * (all - retried).
  expr: |
    sum by (namespace, stage_type) (rate(jobnik_sdk_worker_task_duration_seconds_count{status="failed",{{ $pods }}}[10m]))
      - 0.8 * sum by (namespace, stage_type) (rate(jobnik_sdk_worker_task_retries_total{ {{- $pods -}} }[10m]))
      > 0.2 * sum by (namespace, stage_type) (rate(jobnik_sdk_worker_task_duration_seconds_count{ {{- $pods -}} }[10m]))
    or
    sum by (namespace, stage_type) (rate(jobnik_sdk_worker_task_duration_seconds_count{status="failed",{{ $pods }}}[10m]))
      > 0.5 * sum by (namespace, stage_type) (rate(jobnik_sdk_worker_task_duration_seconds_count{ {{- $pods -}} }[10m]))
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: "More than 20% of the {{ "{{" }} $labels.stage_type {{ "}}" }} tasks fail, or more than half of the attempts at them"
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkertasksfail
    {{- end }}
- alert: JobnikWorkerBreakerOpen
  # An open breaker (2) is half open (1) for one call after each pause, so the rule takes the maximum of two minutes.
  expr: |
    max by (namespace, pod, stage_type, breaker) (max_over_time(jobnik_sdk_worker_circuit_breaker_state{ {{- $pods -}} }[2m])) == 2
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: "{{ "{{" }} $labels.pod {{ "}}" }} claims no {{ "{{" }} $labels.stage_type {{ "}}" }} tasks: its {{ "{{" }} $labels.breaker {{ "}}" }} circuit breaker is open"
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkerbreakeropen
    {{- end }}
- alert: JobnikWorkerIdleBesideBacklog
  # The first metric comes from the manager, so it exists even when there are no pods.
  expr: |
    max by (stage_type) (jobnik_oldest_waiting_age_seconds{ {{- $queues -}} }) > {{ mul 60 $minutes }}
      unless on (stage_type)
        max by (stage_type) (max_over_time(jobnik_sdk_worker_last_success_timestamp_seconds{ {{- $pods -}} }[{{ $minutes }}m]))
          > time() - {{ mul 60 $minutes }}
  for: 5m
  labels: {severity: critical, namespace: {{ .Release.Namespace | quote }}}
  annotations:
    summary: "No {{ "{{" }} $labels.stage_type {{ "}}" }} task has completed for {{ $minutes }} minutes, although tasks are waiting"
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
    summary: "The manager rejects more than 5% of the reports on {{ "{{" }} $labels.stage_type {{ "}}" }} tasks: leases expire"
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
    summary: "More than half of the requests to the manager get no answer"
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkercannotreachmanager
    {{- end }}
{{- end }}
