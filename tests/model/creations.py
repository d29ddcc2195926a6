"""Strategies for the bodies of new jobs, stages and tasks.

A step should need few choices of Hypothesis, because their number in one example is limited.
"""

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.model.entities import PRIORITIES, Body, Json
from tests.model.model import AN_INSTANT, FAR, Model

LETTERS = "ab"
"""The ends of the stage types: only two, so that stages compete for claims."""
FIXED: Body = {"strategy": "fixed", "delaySeconds": 3600}
GROWING: Body = {"delaySeconds": 1800, "factor": 3}
NOTHING: Body = {}
TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
OTHER_TRACE = "00-fedcba9876543210fedcba9876543210-fedcba9876543210-00"

NAME: SearchStrategy[str] = st.runner().map(lambda clients: clients.name)
TYPE = st.builds("{}-{}".format, NAME, st.sampled_from((LETTERS[0], *LETTERS)))
KEY = st.builds("{} ü {}".format, NAME, st.sampled_from("12"))
PRIORITY = st.sampled_from(("MEDIUM", "HIGH", "MEDIUM", *PRIORITIES))
COMMON: SearchStrategy[Body] = st.sampled_from(
    (
        {"data": {}},
        {
            "data": {"deep": [1, {"ü": None}]},
            "userMetadata": {"userMetadata": {}},
            "traceparent": TRACE,
            "tracestate": "a=1",
        },
    )
)


def _new(**fields: SearchStrategy[Any]) -> SearchStrategy[Json]:
    """The body of a new entity; a field that is None is left out."""
    return _all_of(COMMON, st.fixed_dictionaries(fields).map(_given))


def _given(fields: Body) -> Body:
    return {name: value for name, value in fields.items() if value is not None}


def _all_of(*bodies: SearchStrategy[Body]) -> SearchStrategy[Json]:
    """Several bodies merged; the last one takes precedence."""
    return st.tuples(*bodies).map(lambda parts: {name: value for part in parts for name, value in part.items()})


# Tasks

LIMITS = st.sampled_from((None, 1, 2))
OPTIONS: SearchStrategy[Body] = st.sampled_from(
    (
        *4 * (NOTHING,),
        *2 * ({"timeoutSeconds": 1800},),
        {"delaySeconds": 3600},
        {"delaySeconds": 0},
        {"availableAt": FAR},
        {"availableAt": "2020-01-01T00:00:00Z"},
        {"retry": FIXED, "timeoutSeconds": None},
        {"retry": GROWING, "delaySeconds": None},
    )
)
TASK = _all_of(_new(maxAttempts=LIMITS), OPTIONS)
TASKS: SearchStrategy[Json] = st.one_of(st.tuples(TASK), st.tuples(TASK, TASK)).map(list)
WRONG_TASKS: tuple[Body, ...] = (
    {"data": {}, "maxAttempts": 0},
    {"data": {}, "delaySeconds": 1, "availableAt": FAR},
)
ODD_TASKS: SearchStrategy[Json] = st.sampled_from(([], *([{"data": {}}, wrong] for wrong in WRONG_TASKS)))

# Stages

STAGE_OPTIONS: SearchStrategy[Body] = st.sampled_from(
    (
        *3 * (NOTHING,),
        {"weight": 2.5, "taskDefaults": {}},
        {"weight": 1, "taskDefaults": {"maxAttempts": 2, "retry": FIXED}},
        {"taskDefaults": {"maxAttempts": 1, "timeoutSeconds": 1800}},
        {"weight": 0.5, "taskDefaults": {"retry": GROWING}},
    )
)
STAGE = _all_of(_new(type=TYPE, startAsWaiting=st.sampled_from((None, None, None, True))), STAGE_OPTIONS)

# Jobs

PLAIN: Body = {"data": {"number": 1}}
BRANCHES: SearchStrategy[Body] = st.sampled_from(
    (
        *2 * ({"tasks": [PLAIN]},),
        {"tasks": [{"data": {}, "maxAttempts": 2, "userMetadata": {"a": "b"}}, PLAIN]},
        {"tasks": [{"data": {}, "traceparent": OTHER_TRACE}, PLAIN | {"delaySeconds": 3600}]},
        {"tasks": [PLAIN | {"availableAt": FAR, "timeoutSeconds": 1800, "maxAttempts": 3}, PLAIN]},
        {"tasks": [PLAIN | {"retry": FIXED, "traceparent": OTHER_TRACE, "tracestate": "b=2"}]},
        {"tasks": []},
        NOTHING,
    )
)
"""The tasks of a stage."""
BRANCH = _all_of(STAGE, BRANCHES)
JOB = _new(name=NAME, priority=st.one_of(st.none(), PRIORITY))
STAGES: SearchStrategy[Json] = st.one_of(*2 * (st.tuples(BRANCH), st.tuples(BRANCH, BRANCH)), st.just(())).map(list)
TREE = _all_of(JOB, st.fixed_dictionaries({"stages": STAGES}))
SPANS: SearchStrategy[Body] = st.sampled_from(
    (NOTHING, {"uniqueFor": "running"}, {"uniqueFor": 3600}, {"uniqueFor": AN_INSTANT})
)


def _unique(key: SearchStrategy[str]) -> SearchStrategy[Json]:
    """A job with a unique key."""
    return _all_of(st.one_of(JOB, TREE), st.fixed_dictionaries({"uniqueKey": key}), SPANS)


UNIQUE_JOB = _unique(KEY)


def once_more(model: Model, name: str) -> SearchStrategy[Json]:
    """A job with the unique key of the named job, if that is the last one with its key."""
    keys = [key for key, job in model.keyed.items() if job.id == name]
    return _unique(st.just(keys[0]) if keys else KEY)


WRONG_JOBS: SearchStrategy[Body] = st.sampled_from(
    (
        {"uniqueKey": ""},
        {"uniqueKey": 201 * "k"},
        {"uniqueFor": 0},
        {"uniqueFor": "ever"},
        {"stages": [{"type": "a", "data": {}, "tasks": [PLAIN]}, {"type": "a", "data": {}, "weight": 0}]},
        *({"stages": [{"type": "a", "data": {}, "tasks": [PLAIN, wrong]}]} for wrong in WRONG_TASKS),
    )
)
ODD_JOB = _all_of(TREE, st.fixed_dictionaries({"uniqueKey": KEY}), WRONG_JOBS)
