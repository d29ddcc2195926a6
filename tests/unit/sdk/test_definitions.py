"""Job types and stage types."""

import pytest
from jobnik_sdk import ConfigurationError, Empty, JobType, StageType


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


def test_models_are_empty_by_default() -> None:
    """A stage type has no result, and empty data and metadata, unless they are given."""
    stage_type = StageType("s", task=Empty)
    assert (stage_type.result, stage_type.data, stage_type.metadata, stage_type.task_metadata) == (
        None,
        Empty,
        Empty,
        Empty,
    )
