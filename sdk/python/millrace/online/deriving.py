"""Derived features of a published view: calculated of finished values, as an answer is given.

Nothing of them is stored. An age and ``AS_OF()`` change with time alone, so what is derived of
them is known at the instant of the answer and not before; the rest is derived there too, since one
rule is easier to hold than two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from millrace.expressions import AS_OF, Expression, compiled
from millrace.expressions.documents import from_document
from millrace.online.answers import Answer, Status
from millrace.types import DataType, parse_type
from millrace.values.plain import from_plain

Aged = Callable[[int | None], tuple[int | None, Status]]


class OnlineDerived(NamedTuple):
    """A derived feature as an answer needs it.

    Attributes:
        inputs: the features that it reads.
        value: its value of a row of theirs.
        default: what stands in place of null.
    """

    name: str
    type: DataType
    inputs: tuple[str, ...]
    value: Callable[[Mapping[str, Any]], Any]
    default: Any


class Step(NamedTuple):
    """One derived feature among the answers of a request.

    Attributes:
        inputs: places of the answers that it is made of.
    """

    feature: OnlineDerived
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Derivation:
    """What a request needs of a view, worked out once for all its rows.

    Attributes:
        places: which of the aggregates, by place.
        names: of these.
        steps: what is derived of them, each behind its inputs.
        shown: of each feature asked for, its place among the answers of both.
    """

    places: tuple[int, ...]
    names: tuple[str, ...]
    steps: tuple[Step, ...]
    shown: tuple[int, ...]

    @classmethod
    def of(
        cls, asked: Sequence[str], aggregates: Sequence[str], derived: Sequence[OnlineDerived]
    ) -> "Derivation":
        """Return the derivation of the features of these names, and of no others."""
        needed = set(asked)
        for feature in reversed(derived):
            if feature.name in needed:
                needed.update(feature.inputs)
        places = tuple(i for i, name in enumerate(aggregates) if name in needed)
        names = tuple(aggregates[i] for i in places)
        at = {name: i for i, name in enumerate(names)}
        steps = []
        for feature in derived:
            if feature.name in needed:
                steps.append(Step(feature, tuple(at[name] for name in feature.inputs)))
                at[feature.name] = len(at)
        return cls(places, names, tuple(steps), tuple(at[name] for name in asked))

    def complete(self, answers: list[Answer], as_of_ms: int, aged: Aged) -> list[Answer]:
        """Return what is answered, given the answers of the aggregates.

        The ``ts`` of a derived value is the newest of its inputs, and its status what a value of
        that age has; it is over its limit if it is null and one of its inputs is over its own.
        """
        row: dict[str, Any] = {AS_OF: as_of_ms}
        for name, answer in zip(self.names, answers, strict=True):
            row[name] = answer[0]
        for feature, inputs in self.steps:
            value = feature.value(row)
            is_over = value is None and any(answers[i][2] == "OVER_LIMIT" for i in inputs)
            if value is None:
                value = feature.default
            row[feature.name] = value
            newest_ms = max(
                (ts_ms for i in inputs if (ts_ms := answers[i][1]) is not None), default=None
            )
            ts_ms, status = aged(newest_ms)
            if is_over:
                status = "OVER_LIMIT"
            elif value is None:
                status = "NULL_VALUE"
            answers.append((value, ts_ms, status))
        return [answers[i] for i in self.shown]


def derived_of(document: Mapping[str, Any]) -> tuple[OnlineDerived, ...]:
    """Return the derived features of a serving plan, each behind its inputs."""
    return tuple(map(_derived, document.get("derived", ())))


def _derived(feature: Mapping[str, Any]) -> OnlineDerived:
    expression: Expression = from_document(feature["expression"])
    type_ = parse_type(feature["type"])
    return OnlineDerived(
        feature["name"],
        type_,
        tuple(name for name in expression.columns if name != AS_OF),
        compiled(expression),
        from_plain(feature["default"], type_),
    )
