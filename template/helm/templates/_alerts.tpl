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
{{- /* Prometheus replaces these. */ -}}
{{- $pod := "{{ $labels.pod }}" -}}
{{- $type := "{{ $labels.stage_type }}" -}}
{{- $breaker := "{{ $labels.breaker }}" -}}
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
    summary: "More than 20% of the {{ $type }} tasks fail, or more than half of the attempts at them"
    description: >-
      Find the error in the dashboard's panel "Failed attempts by error" or in the logs, then restore the service that
      is down, or roll back the last release.
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
    summary: "{{ $pod }} claims no {{ $type }} tasks: its {{ $breaker }} circuit breaker is open"
    description: >-
      If the breaker is "handler", find out why attempts fail; if it is "dequeue", why claims fail. If other pods
      work, delete this one.
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
    summary: "No {{ $type }} task has completed for {{ $minutes }} minutes, although tasks are waiting"
    description: >-
      Check whether pods exist and are ready, whether their slots are in use, and which problem /livez and /readyz
      state.
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkeridlebesidebacklog
    {{- end }}
- alert: JobnikWorkerLeasesLost
  # The window is as long as the wait, so that one short failure of the network raises no alert.
  expr: |
    sum by (namespace, stage_type) (increase(jobnik_sdk_worker_leases_lost_total{ {{- $pods -}} }[15m]))
      > 0.01 * sum by (namespace, stage_type) (increase(jobnik_sdk_worker_task_duration_seconds_count{ {{- $pods -}} }[15m]))
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: "More than 1% of the attempts at {{ $type }} tasks lose their leases, and the work is done again"
    description: >-
      If heartbeats are late, move handlers that compute in C code to the style PROCESS, or give the pods more CPU. If
      heartbeats fail, check the network and the manager. Otherwise, handlers run longer than their tasks' time limit.
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkerleaseslost
    {{- end }}
- alert: JobnikWorkerReportsRefused
  expr: |
    sum by (namespace, stage_type) (rate(jobnik_sdk_consumer_task_updates_total{result="failure",{{ $pods }}}[10m]))
      > 0.05 * sum by (namespace, stage_type) (rate(jobnik_sdk_consumer_task_updates_total{ {{- $pods -}} }[10m]))
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: "The manager refuses more than 5% of the reports on {{ $type }} tasks"
    description: >-
      See the codes in the dashboard's panel "Reports". LEASE_LOST means that leases expire before the reports arrive.
      For other codes, the log line "report refused" has the reason.
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkerreportsrefused
    {{- end }}
- alert: JobnikWorkerReportsWait
  # The number of waiting reports, divided by the attempts that end per second, is how long a report waits.
  expr: |
    sum by (namespace, pod) (min_over_time(jobnik_sdk_worker_reports_waiting{ {{- $pods -}} }[10m]))
      > 60 * sum by (namespace, pod) (rate(jobnik_sdk_worker_task_duration_seconds_count{ {{- $pods -}} }[10m]))
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: "The reports of {{ $pod }} wait for longer than a minute"
    description: >-
      The worker keeps the outcomes of its tasks and sends them again. Find the reason in its log line "report not
      delivered, retrying". Do not delete the pod before: its tasks would be done again.
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkerreportswait
    {{- end }}
- alert: JobnikWorkerStalls
  expr: |
    sum by (namespace, pod) (rate(jobnik_sdk_worker_event_loop_blocked_seconds_total{ {{- $pods -}} }[10m])) > 0.1
    or
    sum by (namespace, pod) (increase(jobnik_sdk_worker_heartbeats_late_total{ {{- $pods -}} }[10m])) >= 1
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: "{{ $pod }} does not run for long periods"
    description: >-
      If the log has "event loop blocked", move the code in its stack trace to a thread or a process. If it has
      "heartbeat late", move handlers that compute in C code to the style PROCESS, or give the pod more CPU.
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkerstalls
    {{- end }}
- alert: JobnikWorkerProcessesDie
  expr: |
    sum by (namespace, stage_type) (rate(jobnik_sdk_worker_processes_ended_total{reason="died",{{ $pods }}}[10m]))
      > 0.05 * sum by (namespace, stage_type) (rate(jobnik_sdk_worker_task_duration_seconds_count{ {{- $pods -}} }[10m]))
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: "More than 5% of the attempts at {{ $type }} tasks end with the death of their process"
    description: >-
      Find the exit status in the log line "handler process died". After SIGKILL, raise resources.memory or lower
      env.worker.concurrency. After SIGSEGV, update the library that crashes.
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkerprocessesdie
    {{- end }}
- alert: JobnikWorkerSlotsAbandoned
  # A stage type with processes has the metric in the last line, and a process that is killed frees its slot.
  expr: |
    sum by (namespace, pod, stage_type) (jobnik_sdk_worker_handlers_abandoned_total{ {{- $pods -}} })
      >= 0.5 * sum by (namespace, pod, stage_type) (jobnik_sdk_worker_slots{ {{- $pods -}} }) > 0
      unless on (namespace, pod, stage_type) jobnik_sdk_worker_processes_ended_total{ {{- $pods -}} }
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: "Abandoned handlers may occupy half of the {{ $type }} slots of {{ $pod }}"
    description: >-
      Delete the pod if it runs out of slots. Let the handler check context.cancellation: the log line "handler ignored
      cancellation, abandoned" shows where it was.
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkerslotsabandoned
    {{- end }}
- alert: JobnikWorkerCannotReachManager
  expr: |
    sum by (namespace) (rate(jobnik_sdk_http_request_duration_seconds_count{status_code="none",{{ $pods }}}[5m]))
      > 0.5 * sum by (namespace) (rate(jobnik_sdk_http_request_duration_seconds_count{ {{- $pods -}} }[5m]))
  for: 5m
  labels: {severity: critical}
  annotations:
    summary: "More than half of the requests to the manager get no answer"
    description: >-
      Check with "helm test" that the manager runs, that env.jobnik.baseUrl is its address, and that a network policy
      allows its port.
    {{- with $runbook }}
    runbook_url: {{ . }}#jobnikworkercannotreachmanager
    {{- end }}
{{- end }}
