"""Makes a Feast repository with the benchmark's values; run by the Python that Feast is installed in.

FEAST_PYTHON feast_repository.py FOLDER STORE_HOST:PORT CUSTOMERS
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float64, Int64, String

INTEGERS = ("payments_1h", "payments_1d", "payments_7d", "items_max_1d")
DOUBLES = ("amount_avg_1h", "amount_avg_1d", "amount_sum_1d", "amount_stddev_7d")


def main() -> None:
    """Write the repository, apply it, and store a row for each customer."""
    folder, store, customers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    folder.joinpath("feature_store.yaml").write_text(
        "project: bench\nprovider: local\nregistry: registry.db\n"
        f'online_store: {{type: redis, connection_string: "{store},db=1"}}\n'
        "offline_store: {type: file}\nentity_key_serialization_version: 3\n",
        encoding="utf-8",
    )
    now = datetime.now(UTC)
    rows = pd.DataFrame({"customer_id": range(customers), "paid_at": now - timedelta(seconds=1)})
    for place, name in enumerate(INTEGERS):
        rows[name] = rows.customer_id % (50 + place)
    for place, name in enumerate(DOUBLES):
        rows[name] = rows.customer_id / (7.0 + place)
    rows["online_last"] = rows.customer_id % 2 == 0
    rows["channel_last"] = "web"
    file = folder / "rows.parquet"
    rows.to_parquet(file)
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
    types = dict.fromkeys(INTEGERS, Int64) | dict.fromkeys(DOUBLES, Float64)
    types |= {"online_last": Bool, "channel_last": String}
    view = FeatureView(
        name="customer_payments",
        entities=[customer],
        ttl=timedelta(days=30),
        schema=[Field(name=name, dtype=type_) for name, type_ in types.items()],
        source=FileSource(path=str(file), timestamp_field="paid_at"),
    )
    feast = FeatureStore(repo_path=str(folder))
    feast.apply([customer, view])
    feast.write_to_online_store("customer_payments", rows)


if __name__ == "__main__":
    main()
