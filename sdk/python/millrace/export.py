"""Specs back into declarations, without loss: reading an export gives equal specs.

Fields that hold their defaults are left out; comments, key order and the ``windows`` shorthand of
the original are not kept.
"""

import keyword
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from math import isfinite
from typing import Any

import yaml

from millrace.errors import NotDeclared, nearest
from millrace.load.keys import VERSION
from millrace.load.scalars import is_text_to_all, legacy_tag
from millrace.spec import (
    Check,
    Column,
    DerivedFeature,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    Session,
    Source,
    Specs,
    Tumbling,
    WindowSpec,
)

_LINE_WIDTH = 100


def of_view(specs: Specs, name: str) -> Specs:
    """Return one view with the source and the entities it names, of each the first declared.

    Raises:
        NotDeclared: no such view; the nearest are named.
    """
    view = next((v for v in specs.views if v.name == name), None)
    if view is None:
        known = [v.name for v in specs.views]
        raise NotDeclared(f"no feature view {name!r}", fix=nearest(name, known))
    source = next((s for s in specs.sources if s.name == view.source), None)
    entities = {e.name: e for e in reversed(specs.entities)}
    return Specs(
        sources=() if source is None else (source,),
        entities=tuple(entities[n] for n in view.entities if n in entities),
        views=(view,),
    )


def to_yaml(specs: Specs) -> str:
    """Return a YAML file of the declarations."""
    document: dict[str, Any] = {
        "version": VERSION,
        "sources": [_source(source) for source in specs.sources],
        "entities": [_Line(_given(entity)) for entity in specs.entities],
        "feature_views": [_view(view) for view in specs.views],
        "feature_services": [_given(service) for service in specs.services],
    }
    return yaml.dump(
        {key: value for key, value in document.items() if value},
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=_LINE_WIDTH,
    )


class _Line(dict[str, Any]):
    """A mapping that is written in one line."""


class _Dumper(yaml.SafeDumper):
    """Block style, with ``_Line`` mappings in braces and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_line(dumper: yaml.SafeDumper, line: _Line) -> yaml.MappingNode:
    return dumper.represent_mapping("tag:yaml.org,2002:map", line.items(), flow_style=True)


_Dumper.add_representer(_Line, _represent_line)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML leaves U+0085 and its like bare, and a reader takes them for line ends; and it leaves
    # bare what it takes for a text itself, but others do not.
    style = '"' if not text.isprintable() else None if is_text_to_all(text) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = (
        repr(value) if isfinite(value) else f"{value}".replace("inf", ".inf").replace("nan", ".nan")
    )
    # The tag that the text alone has, for PyYAML takes 1e+20 for a text and would write a tag.
    return dumper.represent_scalar(legacy_tag(text), text)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)


def _given(record: Any) -> dict[str, Any]:
    """Return the fields of a record that differ from their defaults, as plain values."""
    given: dict[str, Any] = {}
    for declared in fields(record):
        value = getattr(record, declared.name)
        default = declared.default
        if declared.default_factory is not MISSING:
            default = declared.default_factory()
        if declared.name != "where" and value != default:
            given[declared.name] = _plain(value)
    return given


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _source(source: Source) -> dict[str, Any]:
    given = _given(source)
    given["columns"] = {name: _column(column) for name, column in source.columns.items()}
    for name in ("batch", "stream", "schedule"):
        if name in given:
            given[name] = _Line(_given(getattr(source, name)))
    return given


def _column(column: str | Column) -> Any:
    if isinstance(column, str):
        return column
    given = _given(column)
    return _Line({("from" if name == "origin" else name): value for name, value in given.items()})


def _view(view: FeatureView) -> dict[str, Any]:
    given = _given(view)
    if len(view.entities) == 1:
        given = {("entity" if k == "entities" else k): v for k, v in given.items()}
        given["entity"] = view.entities[0]
    # An empty list and none at all differ in what is asked of the author, so it is kept.
    given["features"] = [_Line(_feature(feature)) for feature in view.features]
    if view.tags:
        given["tags"] = _Line(view.tags)
    if view.checks:
        given["checks"] = [_Line({"type": c.type, **_plain(c.arguments)}) for c in view.checks]
    return {**{k: v for k, v in given.items() if k not in _LAST}, **_only(given, _LAST)}


_LAST = ("tags", "features", "checks")


def _only(given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _feature(feature: Feature | DerivedFeature) -> dict[str, Any]:
    given = _given(feature)
    given.update(_numbers(given.pop("parameters", {})))
    if isinstance(feature, Feature) and not isinstance(feature.window, str):
        given["window"] = _Line(_window(feature.window))
    first = _only(given, ("name", "aggregate", "column", "expr", "derive"))
    return {**first, **{k: v for k, v in given.items() if k not in first}}


def _window(window: Tumbling | Session) -> dict[str, Any]:
    given = _numbers(_given(window))
    return {_WINDOW_KEYS.get(name, name): value for name, value in given.items()}


def _numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of aggregates and windows with whole numbers as such: 3, not 3.0."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in given.items()
    }


_WINDOW_KEYS = {"unit": "tumbling", "gap": "session"}
"""Fields of windows that YAML calls otherwise."""


def to_python(specs: Specs) -> str:
    """Return a Python file of the declarations."""
    calls = [
        *(_call("Source", s, _source_arguments(s)) for s in specs.sources),
        *(_call("Entity", e, _entity_arguments(e)) for e in specs.entities),
        *(_call("FeatureView", v, _view_arguments(v)) for v in specs.views),
        *(_call("FeatureService", s, _service_arguments(s)) for s in specs.services),
    ]
    if not calls:
        return ""
    used = sorted(set(_used_names(specs)))
    taken = set(used)
    body = []
    for kind, name, arguments in calls:
        variable = _variable(name, kind, taken)
        body.append(f"{variable} = {kind}(\n" + "".join(f"    {a},\n" for a in arguments) + ")\n")
    names = "".join(f"    {name},\n" for name in used)
    return f"from millrace import (\n{names})\n\n" + "\n".join(body)


_Call = tuple[str, str, list[str]]
_Declared = Source | Entity | FeatureView | FeatureService


def _call(kind: str, declared: _Declared, arguments: list[str]) -> _Call:
    return kind, declared.name, [_literal(declared.name), *arguments]


def _used_names(specs: Specs) -> Iterator[str]:
    if specs.entities:
        yield "Entity"
    if specs.views:
        yield "FeatureView"
    if specs.services:
        yield "FeatureService"
    for source in specs.sources:
        yield from _source_names(source)
    for view in specs.views:
        if view.checks:
            yield "Check"
        for feature in view.features:
            if isinstance(feature, DerivedFeature):
                yield "derived"
                continue
            yield feature.aggregate
            if not isinstance(feature.window, str):
                yield type(feature.window).__name__.lower()


def _source_names(source: Source) -> Iterator[str]:
    yield "Source"
    if any(isinstance(column, Column) for column in source.columns.values()):
        yield "Column"
    parts = {
        "BatchSource": source.batch,
        "StreamSource": source.stream,
        "Schedule": source.schedule,
    }
    yield from (name for name, part in parts.items() if part is not None)


def _variable(name: str, kind: str, taken: set[str]) -> str:
    variable = name if name.isidentifier() and not keyword.iskeyword(name) else f"{kind.lower()}_1"
    while variable in taken:
        variable += f"_{kind.lower()}"
    taken.add(variable)
    return variable


def _keywords(given: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_literal(value)}" for name, value in given.items()]


def _literal(value: Any) -> str:
    """Return Python source of a plain value."""
    if isinstance(value, str):
        is_plain = value.isprintable() and not {'"', "\\"} & set(value)
        return f'"{value}"' if is_plain else repr(value)
    if isinstance(value, float) and not isfinite(value):
        return f'float("{value}")'
    if isinstance(value, Mapping):
        inner = (f"{_literal(key)}: {_literal(one)}" for key, one in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return repr(value)


def _source_arguments(source: Source) -> list[str]:
    apart = {"name", "columns", "batch", "stream", "schedule"}
    given = {k: v for k, v in _given(source).items() if k not in apart}
    columns = "".join(
        f"        {_literal(name)}: {_column_call(column)},\n"
        for name, column in source.columns.items()
    )
    arguments = ["columns={\n" + columns + "    }", *_keywords(given)]
    if source.batch is not None:
        arguments.append(
            f"batch=BatchSource({_literal(source.batch.format)}, {_literal(source.batch.path)})"
        )
    if source.stream is not None:
        topic, form = source.stream.topic, source.stream.format
        arguments.append(f"stream=StreamSource({_literal(topic)}, {_literal(form)})")
    if source.schedule is not None:
        arguments.append(f"schedule=Schedule({', '.join(_keywords(_given(source.schedule)))})")
    return arguments


def _column_call(column: str | Column) -> str:
    if isinstance(column, str):
        return _literal(column)
    given = {name: value for name, value in _given(column).items() if name != "type"}
    return f"Column({', '.join([_literal(column.type), *_keywords(given)])})"


def _entity_arguments(entity: Entity) -> list[str]:
    arguments = [_literal(entity.join_key), _literal(entity.type)]
    return arguments + _keywords(_only(_given(entity), ("description",)))


def _view_arguments(view: FeatureView) -> list[str]:
    given = _given(view)
    key = (
        f"entity={_literal(view.entities[0])}"
        if len(view.entities) == 1
        else f"entities={_literal(list(view.entities))}"
    )
    skipped = {"name", "entities", "features", "checks"}
    arguments = [key, *_keywords({k: v for k, v in given.items() if k not in skipped})]
    features = "".join(f"        {_builder(feature)},\n" for feature in view.features)
    arguments.append("features=[\n" + features + "    ]")
    if view.checks:
        checks = "".join(f"        {_check(check)},\n" for check in view.checks)
        arguments.append("checks=[\n" + checks + "    ]")
    return arguments


def _service_arguments(service: FeatureService) -> list[str]:
    return [_literal(list(service.features)), *_keywords(_only(_given(service), ("description",)))]


def _check(check: Check) -> str:
    if all(name.isidentifier() and not keyword.iskeyword(name) for name in check.arguments):
        return f"Check({', '.join([_literal(check.type), *_keywords(check.arguments)])})"
    return _literal({"type": check.type, **check.arguments})


def _window_call(window: WindowSpec) -> str:
    if isinstance(window, str):
        return _literal(window)
    first, *others = _numbers(_given(window)).items()
    return f"{type(window).__name__.lower()}({', '.join([_literal(first[1]), *_keywords(dict(others))])})"


def _builder(feature: Feature | DerivedFeature) -> str:
    if isinstance(feature, DerivedFeature):
        text = f"derived({_literal(feature.derive)}).named({_literal(feature.name)})"
        return text + _steps(feature, ("default",))
    inputs = [] if feature.column is None else [_literal(feature.column)]
    if feature.expr is not None:
        inputs.append(f"expr={_literal(feature.expr)}")
    inputs += _keywords(_numbers(feature.parameters))
    text = f"{feature.aggregate}({', '.join(inputs)}).over({_window_call(feature.window)})"
    text += f".named({_literal(feature.name)})"
    return text + _steps(feature, ("hop", "offset", "default"))


def _steps(feature: Feature | DerivedFeature, names: tuple[str, ...]) -> str:
    given = {name: value for name in names if (value := getattr(feature, name)) is not None}
    if feature.description:
        given["described"] = feature.description
    return "".join(f".{step}({_literal(value)})" for step, value in given.items())
