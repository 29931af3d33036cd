"""Work goes on whatever becomes of the telling about it."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

logger = logging.getLogger(__name__)

P = ParamSpec("P")


def quietly(tell: Callable[P, None]) -> Callable[P, None]:
    """Make a function that tells of work harmless to the work: it logs its failure and returns.

    The one place where any exception is caught: an event that cannot be written, or a fault of
    this package itself, must not fail a backfill. It is logged with its traceback as an error, so
    it is not silent either.
    """

    @wraps(tell)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            tell(*args, **kwargs)
        except Exception:
            logger.exception(
                "an OpenLineage event is lost (%s); the work itself goes on", tell.__name__
            )

    return told
