"""Job types and stage types."""

from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import ConfigurationError, Empty, JobType, RetryPolicy, StageType


@pytest.mark.parametrize("name", ["ab", "x" * 50])
def test_job_type_accepts_valid_names(name: str) -> None:
    """The name of a job type has 2 to 50 characters."""
    assert JobType(name).name == name


@pytest.mark.parametrize("name", ["", "a", "x" * 51])
def test_job_type_rejects_invalid_names(name: str) -> None:
    """A name that the manager would reject is rejected when the job type is created."""
    with pytest.raises(ConfigurationError, match="2 to 50 characters"):
        JobType(name)


@pytest.mark.parametrize("name", ["", "x" * 51])
def test_stage_type_rejects_invalid_names(name: str) -> None:
    """The name of a stage type has 1 to 50 characters."""
    with pytest.raises(ConfigurationError, match="1 to 50 characters"):
        StageType(name, task=Empty)


@pytest.mark.parametrize("name", [".", ".."])
def test_stage_types_that_no_url_can_contain(name: str) -> None:
    """A manager would refuse them when the stage is created."""
    with pytest.raises(ConfigurationError, match="must not be"):
        StageType(name, task=Empty)


def test_models_are_empty_by_default() -> None:
    """A stage type has no result, and empty data and metadata, unless they are given."""
    stage_type = StageType("s", task=Empty)
    assert (stage_type.result, stage_type.data, stage_type.metadata, stage_type.task_metadata) == (
        None,
        Empty,
        Empty,
        Empty,
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_attempts": 0}, "The max_attempts of the stage type 's' must be 1 or more, not 0"),
        ({"timeout": timedelta()}, "The timeout of the stage type 's' must be 0.1 s to 365 days, not 0:00:00"),
        ({"timeout": timedelta(days=366)}, "must be 0.1 s to 365 days"),
    ],
)
def test_stage_type_refuses_options_out_of_range(option: dict[str, Any], message: str) -> None:
    """When it is defined, not when the first stage is created."""
    with pytest.raises(ConfigurationError, match=message):
        StageType("s", task=Empty, **option)


@pytest.mark.parametrize("option", [{"timeout": 5}, {"retry": timedelta(seconds=5)}])
def test_stage_type_refuses_options_of_the_wrong_type(option: dict[str, Any]) -> None:
    """A number of seconds is no duration, and a delay is no policy."""
    with pytest.raises(TypeError, match="of the stage type 's'"):
        StageType("s", task=Empty, **option)


def test_exponential_policy_starts_with_a_second() -> None:
    """So that a definition needs no more than its name."""
    assert RetryPolicy.exponential() == RetryPolicy.exponential(timedelta(seconds=1), factor=2)
