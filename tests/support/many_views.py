"""A house of many views over three sources: of files, of files and a topic, of a topic alone."""

from pathlib import Path

SOURCES = ("orders", "payments", "visits")

_SOURCE = """
  - name: {name}
    columns: {{id: int64, at: timestamp, customer_id: int64, shop_id: int64, amount: "decimal(12,2)"}}
    event_time: at
    event_id: id
    {origins}
"""
_FILES = 'batch: {{format: parquet, path: "${{MILLRACE_DATA}}/{name}"}}'
_TOPIC = "stream: {{topic: {name}, format: json}}"
_ORIGINS = {"orders": (_FILES,), "payments": (_FILES, _TOPIC), "visits": (_TOPIC,)}
_ENTITIES = """
entities:
  - {name: customer, join_key: customer_id, type: int64}
  - {name: shop, join_key: shop_id, type: int64}
"""
_WINDOWS = ("1h", "6h", "1d", "3d", "7d", "14d", "30d", "60d", "90d", "180d")
_TOPICS = ("spend", "habits", "returns", "loyalty", "baskets", "risk", "reach", "mix")


def view_names(views: int) -> list[str]:
    """Return the names of the views, those of each source in turn."""
    return [
        f"{('customer', 'shop')[number % 2]}_{SOURCES[number % 3]}_{_TOPICS[number // 6 % 8]}"
        + ("" if number < 6 * len(_TOPICS) else f"_{number}")
        for number in range(views)
    ]


def declarations(views: int, features: int) -> str:
    """Return declarations in YAML: views of about as many features each, every ninth kept offline.

    A service takes the features of four views, so there are a quarter as many.
    """
    names = view_names(views)
    text = ["version: millrace/v1\nsources:"]
    for name in SOURCES:
        origins = "\n    ".join(origin.format(name=name) for origin in _ORIGINS[name])
        text.append(_SOURCE.format(name=name, origins=origins).rstrip())
    text.append(_ENTITIES.rstrip() + "\nfeature_views:")
    for number, name in enumerate(names):
        count = features // views + (number < features % views)
        text += [
            f"  - name: {name}",
            f"    entity: {name.partition('_')[0]}",
            f"    source: {SOURCES[number % 3]}",
            "    start: 2026-01-01",
            "    owner: team:features",
            *(["    online: false"] if number % 9 == 8 else []),
            "    features:",
            *(
                f"      - {{name: {name}_{window}, aggregate: sum, column: amount, window: {window}}}"
                for window in _WINDOWS[:count]
            ),
        ]
    text.append("feature_services:")
    for number in range(views // 4):
        asked = ", ".join(f'"{name}:*"' for name in names[number * 4 : number * 4 + 4])
        text.append(f"  - {{name: model_{number}, features: [{asked}]}}")
    return "\n".join(text) + "\n"


def write_views(folder: Path, views: int, features: int) -> Path:
    """Write them into a file of a folder; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "views.yaml"
    file.write_text(declarations(views, features), encoding="utf-8")
    return file
