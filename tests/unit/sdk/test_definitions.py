"""Job types and stage types."""

import pytest
from jobnik_sdk import ConfigurationError, Empty, JobType, StageType


@pytest.mark.parametrize("name", ["ab", "x" * 50])
def test_job_type_takes_names_the_protocol_takes(name: str) -> None:
    """A job type's name has 2 to 50 characters."""
    assert JobType(name).name == name


@pytest.mark.parametrize("name", ["", "a", "x" * 51])
def test_job_type_refuses_other_names(name: str) -> None:
    """A name that the manager would refuse is refused where it is written."""
    with pytest.raises(ConfigurationError, match="2 to 50 characters"):
        JobType(name)


@pytest.mark.parametrize("name", ["", "x" * 51])
def test_stage_type_refuses_other_names(name: str) -> None:
    """A stage type's name has 1 to 50 characters."""
    with pytest.raises(ConfigurationError, match="1 to 50 characters"):
        StageType(name, task=Empty)


def test_types_without_models_carry_nothing() -> None:
    """What is not said about a type is empty."""
    stage_type = StageType("s", task=Empty)
    assert (stage_type.result, stage_type.data, stage_type.metadata, stage_type.task_metadata) == (
        None,
        Empty,
        Empty,
        Empty,
    )
