"""Any values for progress and phases are recorded within the protocol's limits, or raise an error in the handler."""

import json
import math
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobnik_sdk import InvalidPayloadError
from jobnik_sdk.execution.progress import AttemptState, Phase

Value: TypeAlias = Any

numbers = st.one_of(
    st.floats(), st.integers(), st.booleans(), st.fractions(), st.decimals(), st.sampled_from([10**400, -(10**400)])
)
anything = st.one_of(
    numbers,
    st.text(),
    st.binary(),
    st.none(),
    st.complex_numbers(),
    st.lists(st.integers()),
    st.timedeltas(),
    st.dates(),
    st.builds(object),
)
texts = st.text(st.characters(codec=None), max_size=1_000)


class Scalar:
    """A number of another library, such as numpy."""

    def __init__(self, value: float) -> None:
        self._value = value

    def __float__(self) -> float:
        return self._value


def _recorded(state: AttemptState) -> dict[str, Any]:
    progress = state.progress
    assert progress is not None
    assert type(progress.fraction) is float
    assert 0.0 <= progress.fraction <= 1.0
    assert len(progress.message) <= 500
    assert progress.eta is None or timedelta() <= progress.eta <= timedelta(days=365)
    return json.loads(json.dumps({"fraction": progress.fraction, "message": progress.message}).encode())


def _refused_field(call: Callable[[], object]) -> str | None:
    try:
        call()
    except InvalidPayloadError as error:
        return error.field
    return None


@settings(max_examples=50, deadline=None)
@given(numbers)
def test_every_number_is_recorded_as_a_float(number: Value) -> None:
    """Numbers outside 0 to 1 are replaced by the nearest limit. A signaling NaN has no value as a float."""
    state = AttemptState()
    if isinstance(number, Decimal) and number.is_snan():
        with pytest.raises(InvalidPayloadError, match=r"^progress\.fraction: "):
            Phase(state).progress(number)
        return
    Phase(state).progress(number)
    expected = 0.0 if number != number else float(min(max(number, 0), 1))  # noqa: PLR0124 NaN
    assert math.isclose(_recorded(state)["fraction"], expected)


@pytest.mark.parametrize(
    ("number", "recorded"),
    [(Fraction(1, 3), 1 / 3), (Decimal("0.5"), 0.5), (Scalar(0.25), 0.25), (True, 1.0), (10**400, 1.0)],
)
def test_numbers_of_other_types_are_converted(number: Value, recorded: float) -> None:
    """Every type with a float value is accepted."""
    state = AttemptState()
    Phase(state).progress(number)
    assert _recorded(state)["fraction"] == recorded


@settings(max_examples=50, deadline=None)
@given(fraction=anything, message=st.one_of(texts, anything), eta=anything)
def test_any_values_are_recorded_or_refused(fraction: Value, message: Value, eta: Value) -> None:
    """An error names the argument, and then nothing is recorded."""
    state = AttemptState()
    refused = _refused_field(lambda: Phase(state).progress(fraction, message, eta))
    if refused is None:
        _recorded(state)
    else:
        assert refused.startswith("progress.")
        assert state.progress is None


@settings(max_examples=50, deadline=None)
@given(name=st.one_of(texts, anything), weight=anything, of=anything, fraction=numbers)
def test_phases_are_shares_of_the_task_or_refused(name: Value, weight: Value, of: Value, fraction: Value) -> None:
    """A weight is any positive number."""
    state = AttemptState()
    root = Phase(state)
    refused = _refused_field(lambda: root.phase(name, weight, of=of))
    if refused is not None:
        assert refused.startswith("phase.")
        return
    with root.phase(name, weight, of=of) as phase:
        _recorded(state)
        if not (isinstance(fraction, Decimal) and fraction.is_snan()):
            phase.progress(fraction)
    _recorded(state)
