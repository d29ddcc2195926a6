"""Request bodies of retention."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, TypeAlias

from pydantic import ConfigDict, Field, Strict, StrictBool

from reference_manager.api.common.fields import WHOLE, Body, BodyContext, Name, Seconds
from reference_manager.domain.commands import RetentionRule
from reference_manager.engine.records.retention import MAX_AGE, MAX_KEPT

MAX_RULES = 1000
Age: TypeAlias = Annotated[
    Annotated[Seconds, Field(ge=1, le=MAX_AGE // timedelta(seconds=1))] | None,
    Field(description="How many seconds after its end such a job is deleted; null: it is kept."),
]


class RetentionRuleBody(Body):
    """How long jobs are kept."""

    completed_seconds: Age
    failed_seconds: Age
    aborted_seconds: Age
    keep_last: Annotated[
        int,
        Strict(),
        Field(ge=0, le=MAX_KEPT, description="This number of jobs of each name that ended last are kept in any case."),
        WHOLE,
    ] = 0

    def rule(self) -> RetentionRule:
        """Convert the body to a rule."""
        return RetentionRule(
            _age(self.completed_seconds), _age(self.failed_seconds), _age(self.aborted_seconds), self.keep_last
        )


class RetentionBody(Body):
    """All rules of retention."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "default": {
                        "completedSeconds": 2_592_000,
                        "failedSeconds": 7_776_000,
                        "abortedSeconds": 2_592_000,
                        "keepLast": 0,
                    },
                    "byName": {
                        "audit": {"completedSeconds": None, "failedSeconds": None, "abortedSeconds": None},
                    },
                }
            ]
        }
    )

    default: Annotated[RetentionRuleBody, Field(description="The rule of jobs whose name has no rule of its own.")]
    by_name: Annotated[
        dict[Name, RetentionRuleBody],
        Field(max_length=MAX_RULES, description="The rules of jobs with these names."),
    ] = {}
    archive: Annotated[
        StrictBool,
        Field(
            description="Whether a job must be in an archive before it is deleted. Managers without an archive then "
            "delete nothing."
        ),
    ] = False

    def convert(self, _context: BodyContext) -> tuple[Mapping[str | None, RetentionRule], bool]:  # noqa: D102 - as in the base class
        return self.rules()

    def rules(self) -> tuple[Mapping[str | None, RetentionRule], bool]:
        """Convert the body to rules by job name, and whether jobs are archived; that of None applies to all others."""
        rules = {None: self.default.rule()} | {name: body.rule() for name, body in self.by_name.items()}
        return rules, self.archive


def _age(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
