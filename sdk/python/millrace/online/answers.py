"""What is said of a feature when it is served."""

from typing import Any, Literal

Status = Literal["PRESENT", "NULL_VALUE", "OVER_LIMIT", "NOT_FOUND", "OUTSIDE_MAX_AGE", "STALE"]

Answer = tuple[Any, int | None, Status]
"""What is served of one feature: its value, the event time of the newest event in its window (also
where the input of that one is null), and its status. A bare tuple: thousands are made a request."""
