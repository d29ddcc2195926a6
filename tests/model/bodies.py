"""Bodies of new jobs, stages and tasks: whether they are valid, and how their fields are answered."""

from tests.model.entities import Body, Entity

NO_TRACE = {"traceparent": "00-00000000000000000000000000000000-0000000000000000-00"}
USUAL_RETRY = {"strategy": "exponential", "delaySeconds": 1, "factor": 2, "maxDelaySeconds": 3600, "jitter": 0}


def is_job(body: Body) -> bool:
    """Whether it is a valid job. Only the mistakes that the requests of this model make are considered."""
    key, span = body.get("uniqueKey"), body.get("uniqueFor", "running")
    return (
        (key is None or 1 <= len(key) <= 200)
        and (span == "running" or (not isinstance(span, str) and span > 0))
        and all(stage.get("weight", 1) > 0 and all(map(is_task, stage.get("tasks", ()))) for stage in stages_of(body))
    )


def is_task(body: Body) -> bool:
    """Whether it is a valid task."""
    return body.get("maxAttempts", 3) > 0 and None in (body.get("delaySeconds"), body.get("availableAt"))


def stages_of(body: Body) -> list[Body]:
    """The stages in the body of a job."""
    return body.get("stages", [])


def policy(retry: Body) -> Body:
    """A retry policy as it is answered: with all fields of its strategy."""
    whole = USUAL_RETRY | {name: value if name == "strategy" else float(value) for name, value in retry.items()}
    fixed = ("strategy", "delaySeconds", "jitter")
    return whole if whole["strategy"] == "exponential" else {name: whole[name] for name in fixed}


def defaults(given: Body) -> Body:
    """The task defaults of a stage as they are answered."""
    shown = {"maxAttempts": int, "timeoutSeconds": float, "retry": policy}
    return {name: show(given[name]) for name, show in shown.items() if name in given}


def under(parent: Entity, body: Body) -> Body:
    """The body of an entity within another one, with the other one's trace unless it has its own."""
    return body if trace_of(body) else body | parent.trace


def trace_of(body: Body) -> Body:
    """The trace context in the body of a new entity; empty without a ``traceparent``."""
    return {name: body[name] for name in ("traceparent", "tracestate") if name in body and "traceparent" in body}
