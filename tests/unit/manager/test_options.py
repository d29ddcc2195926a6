"""Options of tasks and stages, from what a client sends to what the engine takes."""

from datetime import timedelta
from typing import Any

import pytest
from reference_manager.api.queues.requests import ReportBody
from reference_manager.api.stages.requests import StageBody
from reference_manager.api.tasks.requests import RetryBody, TaskBody, new_tasks
from reference_manager.domain.commands import NO_TRACE

HOUR = 3600
GROWING = {"strategy": "exponential", "delaySeconds": 1, "factor": 2, "maxDelaySeconds": HOUR, "jitter": 0}


@pytest.mark.parametrize(
    ("said", "kept"),
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
def test_a_policy_is_kept_with_nothing_left_open(said: dict[str, Any], kept: dict[str, Any]) -> None:
    """Every field is optional; what is kept is all that counts for the strategy, and no more."""
    assert RetryBody.model_validate(said).policy() == kept


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
def test_a_task_that_says_its_options_does_not_ask_its_stage(fields: dict[str, Any], options: list[Any] | None) -> None:
    """The default, said aloud, is an option of the task's own."""
    assert new_tasks([TaskBody.model_validate({"data": {}} | fields)], NO_TRACE).options == options


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (None, None),
        ({}, None),
        ({"maxAttempts": None, "timeoutSeconds": None, "retry": None}, None),
        ({"maxAttempts": 5}, {"maxAttempts": 5}),
        ({"timeoutSeconds": 0.5, "retry": {}}, {"timeoutSeconds": 0.5, "retry": GROWING}),
    ],
)
def test_a_stage_keeps_the_defaults_that_it_has(said: dict[str, Any] | None, kept: dict[str, Any] | None) -> None:
    """What is not said is not there; where nothing is said there are no defaults."""
    body = StageBody.model_validate({"type": "any", "data": {}, "taskDefaults": said})
    assert body.request(NO_TRACE).task_defaults == kept


@pytest.mark.parametrize(
    ("fields", "delay"),
    [
        ({}, None),
        ({"delaySeconds": None}, None),
        ({"delaySeconds": 0}, timedelta()),
        ({"delaySeconds": 1.5}, timedelta(seconds=1.5)),
    ],
)
def test_a_report_without_a_delay_leaves_it_to_the_policy(fields: dict[str, Any], delay: timedelta | None) -> None:
    """No delay is a delay, too, if the worker says so."""
    task = {"taskId": "019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f00", "leaseId": 17, "outcome": "FAILED"}
    assert ReportBody.model_validate(task | fields).request("a worker").delay == delay
