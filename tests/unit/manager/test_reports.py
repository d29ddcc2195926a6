"""Requests to report tasks: how a report is read does not depend on the others in its request."""

import math
from typing import Any, cast

import pytest
from pydantic import ValidationError
from reference_manager.api.common.errors import ErrorResponse, validation_message
from reference_manager.api.queues.requests import Item, ReportBody, SettleBody

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


def read_alone(item: Any) -> Item:  # noqa: ANN401 - any JSON
    """Read one report, without any special case."""
    sent = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    ids = {name: sent.get(name) for name in ("taskId", "leaseId")}
    try:
        return Item(ids, ReportBody.model_validate(item).request(WORKER))
    except ValidationError as error:
        return Item(ids, ErrorResponse(400, "VALIDATION_ERROR", validation_message(error.errors()[0])))


@pytest.mark.parametrize("item", ITEMS)
@pytest.mark.parametrize("others", [[], [COMPLETION], [FAILURE], [COMPLETION, None]])
def test_a_report_is_read_the_same_whatever_is_beside_it(item: Any, others: list[Any]) -> None:  # noqa: ANN401
    """Neither the report nor those before and after it depend on how the request is read."""
    items = [*others, item, *others]
    body = SettleBody.model_validate({"workerId": WORKER, "results": items})
    assert body.request() == [read_alone(one) for one in items]
