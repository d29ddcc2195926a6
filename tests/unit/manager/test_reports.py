"""Requests to report tasks: how a report is read does not depend on the others in its request."""

import json
import math
from typing import Any, cast

import pytest
from pydantic import ValidationError
from pydantic_core import to_json
from reference_manager.api.common.errors import ErrorResponse, validation_message
from reference_manager.api.queues.requests import ReportBody, SettleBody, Settlement, read_completions
from reference_manager.domain.commands import Report

WORKER = "host-1"
COMPLETION = {"taskId": "019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f00", "leaseId": 17, "outcome": "COMPLETED"}
FAILURE = COMPLETION | {"outcome": "FAILED", "error": {"type": "OSError"}}
RESULTS: list[Any] = [None, 0, "", [], {"pages": [1.5, {"a": None}]}]
ITEMS: list[Any] = [
    COMPLETION,
    COMPLETION | {"taskId": "019A2F5E-7C1B-7D3A-9E4F-5B6C7D8E9F00"},
    COMPLETION | {"leaseId": 17.0},
    *(COMPLETION | {"result": result} for result in RESULTS),
    COMPLETION | {"checkpoint": [1], "retryable": False, "delaySeconds": 1.5, "error": {"type": "OSError"}},
    FAILURE,
    FAILURE | {"retryable": False, "delaySeconds": 1.5, "checkpoint": [1]},
    *(COMPLETION | {"outcome": outcome} for outcome in ("RELEASED", "SNOOZED", "completed", None, "IN_PROGRESS")),
    *(
        COMPLETION | {"taskId": task_id}
        for task_id in (
            "{019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f00}",
            "019a2f5e7c1b7d3a9e4f5b6c7d8e9f00",
            "urn:uuid:019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f00",
            "019a2f5e7-c1b-7d3a-9e4f-5b6c7d8e9f00",
            "019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f0\u0660",
            "x" * 36,
            "",
            17,
            None,
        )
    ),
    *(COMPLETION | {"leaseId": lease_id} for lease_id in (0, -1, 1.5, "17", True, None, 2**53)),
    *(COMPLETION | {"result": result} for result in (math.inf, [{"a": -math.inf}])),
    COMPLETION | {"lease": 17},
    {"taskId": COMPLETION["taskId"]},
    {},
    [],
    None,
    "COMPLETED",
]


def read_alone(item: Any) -> Report | ErrorResponse:  # noqa: ANN401 - any JSON
    """Read one report, without any special case."""
    try:
        return ReportBody.model_validate(item).request(WORKER)
    except ValidationError as error:
        return ErrorResponse(400, "VALIDATION_ERROR", validation_message(error.errors()[0]))


def sent_ids(item: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the ids in a report as the response repeats them."""
    sent = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    return to_json([sent.get("taskId"), sent.get("leaseId")]).decode()


def check(settlement: Settlement, items: list[Any]) -> None:
    """Check that reports that were read together are the same as if each had been read alone."""
    assert settlement.reports == [read_alone(one) for one in items]
    assert [sent_ids(ids) for ids in settlement.ids] == [sent_ids(one) for one in items]


@pytest.mark.parametrize("item", ITEMS)
@pytest.mark.parametrize("others", [[], [COMPLETION], [FAILURE], [COMPLETION, None]])
def test_a_report_is_read_the_same_whatever_is_beside_it(item: Any, others: list[Any]) -> None:  # noqa: ANN401
    """Neither the report nor those before and after it depend on how the request is read."""
    items = [*others, item, *others]
    body = {"workerId": WORKER, "results": items}
    check(SettleBody.model_validate(body).request(), items)
    completions = read_completions(json.dumps(body).replace("Infinity", "1e999").encode())
    if completions is not None:
        check(completions, items)


@pytest.mark.parametrize("result", RESULTS)
def test_reports_of_completed_tasks_are_read_in_one_step(result: Any) -> None:  # noqa: ANN401 - any JSON
    """A request of the SDK's worker whose tasks are all completed takes the short way."""
    items = [COMPLETION, COMPLETION | {"leaseId": 18, "result": result}]
    completions = read_completions(to_json({"workerId": WORKER, "results": items}))
    assert completions is not None
    check(completions, items)


@pytest.mark.parametrize(
    "body",
    [
        {"workerId": WORKER, "results": []},
        {"workerId": WORKER, "results": [COMPLETION] * 501},
        {"workerId": "", "results": [COMPLETION]},
        {"workerId": "a" * 201, "results": [COMPLETION]},
        {"results": [COMPLETION]},
        {"workerId": WORKER, "results": [COMPLETION], "more": 1},
        [],
    ],
)
def test_an_invalid_request_is_left_to_the_model(body: Any) -> None:  # noqa: ANN401 - any JSON
    """The short way accepts nothing that the model refuses."""
    assert read_completions(to_json(body)) is None
    with pytest.raises(ValidationError):
        SettleBody.model_validate(body)
