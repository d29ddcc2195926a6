"""The definitions that all applications and their worker share."""

from jobnik_sdk import JobType, StageType
from pydantic import BaseModel


class Text(BaseModel):
    """A task's data."""

    text: str


class Count(BaseModel):
    """A task's result."""

    words: int


essay = JobType("web-essay")
counts = StageType("web-count", task=Text, result=Count)
