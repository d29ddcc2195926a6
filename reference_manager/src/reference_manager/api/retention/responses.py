"""Schemas of retention, for the OpenAPI document."""

from typing import Annotated

from pydantic import Field

from reference_manager.api.common.schemas import Count, Representation


class RetentionRule(Representation):
    """How long jobs are kept."""

    completed_seconds: Annotated[
        float | None, Field(description="How many seconds after its end such a job is deleted; null: it is kept.")
    ]
    failed_seconds: float | None
    aborted_seconds: float | None
    keep_last: Annotated[Count, Field(description="This number of jobs of each name that ended last are kept.")]


class Retention(Representation):
    """All rules of retention."""

    default: Annotated[RetentionRule, Field(description="The rule of jobs whose name has no rule of its own.")]
    by_name: Annotated[dict[str, RetentionRule], Field(description="The rules of jobs with these names.")]
    archive: Annotated[bool, Field(description="Whether a job must be in an archive before it is deleted.")]
