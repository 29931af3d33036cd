"""Every key of a YAML declaration: what may stand there, and what it means.

The one table of it. The loader refuses other keys by it, ``millrace schema`` is it as JSON Schema, and
``docs/reference.md`` is it in words.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Union

from millrace.aggregates import AGGREGATES
from millrace.check_types import CHECK_TYPES, COMMON, ArgumentKind
from millrace.rules.schedules import REFRESHES
from millrace.rules.sources import BATCH_FORMATS, STREAM_FORMATS
from millrace.zones import LONGEST_MS

VERSION = "millrace/v1"

Form = Literal[
    "version", "name", "text", "type", "duration", "window", "day", "time", "number", "value",
    "flag", "columns", "tags", "checks", "expression",
]  # fmt: skip
"""What a scalar, or a mapping with names of the author's own, may be."""


@dataclass(frozen=True)
class Key:
    """One key of a record.

    Attributes:
        meaning: a sentence without its full stop, for people.
        form: what may stand there; a ``Keys`` for a record.
        is_list: a list of that.
        is_required: it must be there.
        choices: the only values, where there are few.
        default: what holds where it is absent, in words; empty for nothing at all.
    """

    meaning: str
    form: Union[Form, "Keys"] = "text"
    is_list: bool = False
    is_required: bool = False
    choices: tuple[str, ...] = ()
    default: str = ""


@dataclass(frozen=True)
class Keys:
    """The keys of one kind of record.

    Attributes:
        of: what the record is, for messages: ``a feature``.
        keys: by name, in the order in which they are written.
        mends: what to write in place of a key that others would look for here.
        exactly_one: groups of keys of which one must be there, and no other.
        at_least_one: groups of keys of which one must be there.
        at_most_one: groups of keys of which no two may be there.
        other: a key that makes the record one of another kind, and the keys of that.
    """

    of: str
    keys: Mapping[str, Key]
    mends: Mapping[str, str] = field(default_factory=dict)
    exactly_one: tuple[tuple[str, ...], ...] = ()
    at_least_one: tuple[tuple[str, ...], ...] = ()
    at_most_one: tuple[tuple[str, ...], ...] = ()
    other: tuple[str, "Keys"] | None = None

    @classmethod
    def plain(
        cls,
        of: str,
        required: tuple[str, ...] = (),
        optional: tuple[str, ...] = (),
        mends: Mapping[str, str] | None = None,
    ) -> "Keys":
        """Return keys of which nothing but their names is known."""
        keys = {name: Key("", is_required=True) for name in required}
        return cls(of, keys | {name: Key("") for name in optional}, mends or {})

    @property
    def required(self) -> tuple[str, ...]:
        """The keys that must be there."""
        return tuple(name for name, key in self.keys.items() if key.is_required)

    @property
    def known(self) -> tuple[str, ...]:
        """All keys, required ones first."""
        return (*self.required, *(name for name, key in self.keys.items() if not key.is_required))


_DESCRIPTION = Key("What it is, for people")

COLUMN = Keys(
    "a column",
    {
        "type": Key("Its type", "type", is_required=True),
        "from": Key(
            "What files and records call it: a name, or a dotted path into nested records",
            default="its name here",
        ),
        "description": _DESCRIPTION,
    },
)
BATCH = Keys(
    "batch",
    {
        "format": Key("Format of the files", is_required=True, choices=BATCH_FORMATS),
        "path": Key(
            "File, folder, pattern or URL; ${NAME} is replaced from the settings", is_required=True
        ),
    },
)
STREAM = Keys(
    "stream",
    {
        "topic": Key("Kafka topic", is_required=True),
        "format": Key("Format of the records", choices=STREAM_FORMATS, default="json"),
    },
)
SCHEDULE = Keys(
    "schedule",
    {
        "refresh": Key(
            "Whether partitions are days, built once complete, or hours, built each hour",
            choices=REFRESHES,
            default="daily",
        ),
        "at": Key(
            "When the daily tick comes, HH:MM", "time", default="as soon as a day is complete"
        ),
        "timezone": Key("IANA name of the zone of at", default="UTC"),
    },
)
SOURCE = Keys(
    "a source",
    {
        "name": Key("Name of the source", "name", is_required=True),
        "description": _DESCRIPTION,
        "columns": Key(
            "Name to type, or to type, from and description", "columns", is_required=True
        ),
        "event_time": Key(
            "Column that says when an event happened: timestamp, date, or int64 of epoch "
            "milliseconds",
            "name",
            is_required=True,
        ),
        "event_id": Key("Column that names an event", "name", default="nothing is deduplicated"),
        "ingest_time": Key(
            "Column of a batch source that says when an event arrived",
            "name",
            default="the event time; a stream has the record timestamp",
        ),
        "allowed_lateness": Key(
            "How long after it happened an event may arrive; later ones are dead letters",
            "duration",
            default="1h",
        ),
        "clock_skew": Key(
            "How far ahead of its arrival an event may be stamped", "duration", default="5s"
        ),
        "dedup_horizon": Key(
            "An id that comes again within it is a duplicate", "duration", default="1d"
        ),
        "batch": Key("Files of history", BATCH),
        "stream": Key("A topic of the same events", STREAM),
        "schedule": Key("When its days are built by themselves", SCHEDULE),
        "end": Key(
            "Of a closed source the day, UTC, from which on it has no events",
            "day",
            default="it goes on",
        ),
        "empty_days": Key(
            "Days, UTC, that bring no events by rule: weekdays by name, and YYYY-MM-DD",
            is_list=True,
        ),
        "late_after": Key(
            "How long after a day is due it is told as late if its files are not there",
            "duration",
            default="it is waited for in silence",
        ),
    },
    at_least_one=(("batch", "stream"),),
)
ENTITY = Keys(
    "an entity",
    {
        "name": Key("Name of the entity", "name", is_required=True),
        "join_key": Key("Column that finds it", "name", is_required=True),
        "type": Key("Type of that column: int32, int64 or string", "type", is_required=True),
        "description": _DESCRIPTION,
    },
)
_TOLD = [(entry.name, one) for entry in AGGREGATES.values() for one in entry.parameters]
PARAMETERS: Mapping[str, Key] = {
    **{
        parameter: Key(
            "; ".join(
                f"Of {name}: {one.description}" for name, one in _TOLD if one.name == parameter
            ),
            "number",
            default=next(
                "" if one.default is None else f"{one.default:g}"
                for _, one in _TOLD
                if one.name == parameter
            ),
        )
        for parameter in dict.fromkeys(one.name for _, one in _TOLD)
    },
}
"""What aggregates are told beside their input."""
_DEFAULT = Key("The value where there would be none, of the feature's type", "value")
_ITS_INPUTS = "a derived feature reads the values of features, each with its own {}: remove {}"
DERIVED = Keys(
    "a derived feature",
    {
        "name": Key("Name of the feature", "name", is_required=True),
        "derive": Key(
            "Expression over features of the view, derived ones too; AS_OF() is the instant of "
            "the query",
            "expression",
            is_required=True,
        ),
        "default": _DEFAULT,
        "description": _DESCRIPTION,
    },
    {
        "aggregate": "keep derive, or the aggregate and its window",
        **{
            name: _ITS_INPUTS.format(name, name)
            for name in ("column", "window", "windows", "hop", "offset")
        },
        "expr": "write it as derive, over features",
    },
)
WINDOWS = {
    "tumbling": Keys(
        "a calendar window",
        {
            "tumbling": Key(
                "What it begins with: an hour, day, week (from Monday) or month of the time zone",
                is_required=True,
                choices=tuple(LONGEST_MS),
            ),
            "timezone": Key("IANA name of the time zone", default="UTC"),
            "previous": Key(
                "How many before the one that the query lies in, which is held as far as it has come",
                "number",
                default="0",
            ),
        },
    ),
    "session": Keys(
        "a session",
        {
            "session": Key(
                "The gap: neighbours, and the newest event and the query, lie less than it apart",
                "duration",
                is_required=True,
            ),
            "max": Key("How far before the query an event may lie", "duration", is_required=True),
        },
    ),
}
"""Windows that are mappings, by the key that tells them apart."""
FEATURE = Keys(
    "a feature",
    {
        "name": Key(
            "Name of the feature; {window} stands for the window as written, {p} for the percentile",
            is_required=True,
        ),
        "aggregate": Key("How values are aggregated", is_required=True),
        "column": Key("Input column", "name", default="a count is then of rows"),
        "expr": Key("Input expression, in place of a column", "expression"),
        "window": Key("Length of the window, lifetime, or a window of another kind", "window"),
        "windows": Key("Several windows, one feature for each", "window", is_list=True),
        "hop": Key(
            "Step in which the tail of the window moves",
            "duration",
            default="about a twelfth of the window",
        ),
        "offset": Key("How far the window lies in the past", "duration", default="0s"),
        **PARAMETERS,
        "ps": Key("Several percentiles, one feature for each", "number", is_list=True),
        "default": _DEFAULT,
        "description": _DESCRIPTION,
    },
    {"filter": 'a view has a filter; for one feature, expr: "CASE WHEN … THEN … END"'},
    exactly_one=(("window", "windows"),),
    at_most_one=(("column", "expr"), ("p", "ps")),
    other=("derive", DERIVED),
)
VIEW = Keys(
    "a feature view",
    {
        "name": Key("Name of the view", "name", is_required=True),
        "description": _DESCRIPTION,
        "entity": Key("The entity its features are about", "name"),
        "entities": Key("Entities of a composite key, in that order", "name", is_list=True),
        "source": Key("The source it reads", "name", is_required=True),
        "start": Key("First day of history, UTC", "day", is_required=True),
        "filter": Key("Condition; only events for which it is true count", "expression"),
        "ttl": Key("Older values are OUTSIDE_MAX_AGE when served", "duration"),
        "freshness": Key(
            "The promised age of the pipeline; beyond it values are STALE", "duration"
        ),
        "online": Key("Whether it may be served", "flag", default="true"),
        "owner": Key("Who answers for it; told of its failures"),
        "tags": Key("Names to texts", "tags"),
        "features": Key("Its features", FEATURE, is_list=True, is_required=True),
        "checks": Key("Data-quality rules beside the defaults", "checks"),
    },
    exactly_one=(("entity", "entities"),),
)
SERVICE = Keys(
    "a feature service",
    {
        "name": Key("Name of the service", "name", is_required=True),
        "features": Key(
            "view:feature, view:*, or a bare feature name where it is unique",
            is_list=True,
            is_required=True,
        ),
        "description": _DESCRIPTION,
    },
)
FILE = Keys(
    "a declaration file",
    {
        "version": Key("Version of the language", "version", choices=(VERSION,)),
        "sources": Key("Streams of events", SOURCE, is_list=True),
        "entities": Key("What features are about", ENTITY, is_list=True),
        "feature_views": Key("Features of one entity from one source", VIEW, is_list=True),
        "feature_services": Key("What models ask for", SERVICE, is_list=True),
    },
)


def check_arguments(kind: str) -> Mapping[str, ArgumentKind]:
    """Return the arguments of a type of check beside ``type``; of an unknown one the common ones."""
    known = CHECK_TYPES.get(kind)
    return {**COMMON, **({} if known is None else known.arguments)}
