"""Analysis of PromQL expressions, on top of a port of Prometheus' own parser."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import promql_parser
from promql_parser import AggregateExpr, BinaryExpr, Call, Expr, MatchOp, MatrixSelector, NumberLiteral, VectorSelector


@dataclass(frozen=True)
class Selection:
    """The samples of a metric that an expression selects."""

    name: str
    wanted: Mapping[str, re.Pattern[str]]
    """The patterns that labels must match."""
    needed: frozenset[str]
    """The labels by which the enclosing expressions group or match."""

    def takes(self, labels: Mapping[str, str]) -> bool:
        """Return whether the selection includes a sample with these labels."""
        return self.needed <= labels.keys() and all(
            name in labels and pattern.fullmatch(labels[name]) for name, pattern in self.wanted.items()
        )


def selections(expression: str) -> list[Selection]:
    """Return the selections of an expression.

    Raises:
        ValueError: The expression is not valid PromQL.
    """
    return list(_selections(promql_parser.parse(expression), frozenset()))


def labels_left(expression: str) -> frozenset[str] | None:
    """Return the labels of the result if the expression groups, or None if it keeps all labels."""
    return _labels_left(promql_parser.parse(expression))


def _selections(expression: Expr, needed: frozenset[str]) -> Iterator[Selection]:
    match expression:
        case AggregateExpr():
            yield from _selections(expression.expr, needed | _grouping(expression))
        case BinaryExpr():
            matching = expression.modifier.matching if expression.modifier else None
            for side in (expression.lhs, expression.rhs):
                yield from _selections(side, needed | frozenset(matching.labels if matching else ()))
        case Call():
            for argument in expression.args:
                yield from _selections(argument, needed)
        case MatrixSelector():
            yield from _selections(expression.vector_selector, needed)
        case VectorSelector():
            assert expression.name is not None
            wanted = {
                matcher.name: re.compile(matcher.value if matcher.op == MatchOp.Re else re.escape(matcher.value))
                for matcher in expression.matchers.matchers
            }
            yield Selection(expression.name, wanted, needed)
        case _:
            assert isinstance(expression, NumberLiteral), f"unsupported expression: {expression}"


def _labels_left(expression: Expr) -> frozenset[str] | None:
    match expression:
        case AggregateExpr():
            return _grouping(expression)
        case BinaryExpr():
            return _labels_left(expression.lhs)
        case Call(func=function) if function.name == "histogram_quantile":
            grouped = _labels_left(expression.args[-1])
            return grouped and grouped - {"le"}
        case _:
            return None


def _grouping(expression: AggregateExpr) -> frozenset[str]:
    return frozenset(expression.modifier.labels if expression.modifier else ())
