"""Options of tasks and stages, from the request to the values that the engine receives."""

import json
from datetime import timedelta
from typing import Any

import pytest
from reference_manager.api.jobs.requests import JobBody
from reference_manager.api.queues.requests import ReportBody
from reference_manager.api.stages.requests import StageBody
from reference_manager.api.tasks.requests import RetryBody, TaskBody, new_tasks
from reference_manager.domain.commands import NO_TRACE

HOUR = 3600
GROWING = {"strategy": "exponential", "delaySeconds": 1, "factor": 2, "maxDelaySeconds": HOUR, "jitter": 0}


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        ({}, GROWING),
        ({"strategy": "fixed"}, {"strategy": "fixed", "delaySeconds": 1, "jitter": 0}),
        (
            {"strategy": "fixed", "delaySeconds": 9, "factor": 3, "maxDelaySeconds": 2, "jitter": 0.5},
            {"strategy": "fixed", "delaySeconds": 9, "jitter": 0.5},
        ),
        ({"delaySeconds": 2 * HOUR}, GROWING | {"delaySeconds": 2 * HOUR, "maxDelaySeconds": 2 * HOUR}),
        ({"delaySeconds": 9, "maxDelaySeconds": 2}, GROWING | {"delaySeconds": 9, "maxDelaySeconds": 2}),
        ({"maxDelaySeconds": None}, GROWING),
    ],
)
def test_a_policy_is_stored_with_its_defaults(body: dict[str, Any], stored: dict[str, Any]) -> None:
    """Every field is optional, and exactly the fields that matter for the strategy are stored."""
    assert RetryBody.model_validate(body).policy() == stored


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, None),
        ({"retry": None, "userMetadata": {}}, None),
        ({"maxAttempts": 3}, [{"maxAttempts": 3}]),
        ({"maxAttempts": 3.0}, [{"maxAttempts": 3}]),
        ({"retry": {}, "timeoutSeconds": 0.5}, [{"timeoutSeconds": 0.5, "retry": GROWING}]),
    ],
)
def test_options_of_a_task_override_the_defaults_of_its_stage(
    fields: dict[str, Any], options: list[Any] | None
) -> None:
    """An option that the task sets is stored, even if it equals the default."""
    assert (
        json.loads(new_tasks([TaskBody.model_validate({"data": {}} | fields)], NO_TRACE, keyed=False).options or "null")
        == options
    )


@pytest.mark.parametrize(
    ("defaults", "stored"),
    [
        (None, None),
        ({}, None),
        ({"maxAttempts": None, "timeoutSeconds": None, "retry": None}, None),
        ({"maxAttempts": 5}, {"maxAttempts": 5}),
        ({"timeoutSeconds": 0.5, "retry": {}}, {"timeoutSeconds": 0.5, "retry": GROWING}),
    ],
)
def test_a_stage_stores_only_the_defaults_that_it_sets(
    defaults: dict[str, Any] | None, stored: dict[str, Any] | None
) -> None:
    """Unset defaults are not stored; a stage that sets none has no defaults."""
    body = StageBody.model_validate({"type": "any", "data": {}, "taskDefaults": defaults})
    assert json.loads(body.request(NO_TRACE, keyed=False).task_defaults or "null") == stored


@pytest.mark.parametrize(
    ("fields", "delay"),
    [
        ({}, None),
        ({"delaySeconds": None}, None),
        ({"delaySeconds": 0}, timedelta()),
        ({"delaySeconds": 1.5}, timedelta(seconds=1.5)),
    ],
)
def test_a_report_without_a_delay_uses_the_policy(fields: dict[str, Any], delay: timedelta | None) -> None:
    """Only a missing delay leaves the decision to the policy; a delay of 0 is a delay."""
    task = {"taskId": "019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f00", "leaseId": 17, "outcome": "FAILED"}
    assert ReportBody.model_validate(task | fields).request("a worker").delay == delay


def test_only_a_request_with_a_key_has_an_identity() -> None:
    """Two requests with the same values have the same identity, whatever their order and their trace contexts."""
    stage: dict[str, Any] = {"type": "a", "data": {}, "tasks": [{"data": {"b": 1, "a": 2}}]}
    one = JobBody.model_validate({"name": "job", "data": {}, "stages": [stage]})
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    task = {"data": {"a": 2, "b": 1}, "traceparent": traceparent}
    other = JobBody.model_validate({"name": "job", "data": {}, "stages": [stage | {"weight": 1, "tasks": [task]}]})

    def identities(body: JobBody, *, keyed: bool) -> list[str]:
        job = body.request(NO_TRACE, keyed=keyed)
        return [job.identity, *(part.identity for pair in job.stages or () for part in pair)]

    assert identities(one, keyed=True) == identities(other, keyed=True)
    assert all(identities(one, keyed=True))
    assert identities(one, keyed=False) == ["", "", ""]
