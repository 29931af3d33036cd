"""How large a share may be: of nulls, of one value, of events that were refused."""

from collections.abc import Sequence
from math import sqrt
from statistics import median

from millrace.quality.baseline import Limits, usual, wider
from millrace.quality.case import Case

SHARE_SPREADS = 6.0

_NOISE = 5.0
_SURELY_OTHERS = 40
_GRAVE = 0.1


def share_limits(
    case: Case, groups: Sequence[Sequence[float]], *, n: int, default: float
) -> Limits:
    """Return how large a share may be by what is usual; there is no limit below.

    Args:
        case: the rule, with the ``tolerance`` and ``spreads`` it may name.
        groups: shares on earlier days, of each of ``Baseline.groups``; empty ones are left out.
        n: of how many the day's share is; of few, more may be chance.
        default: the tolerance of a rule that names none.
    """
    spreads = case.argument("spreads", SHARE_SPREADS)
    found = []
    for past in groups:
        if not past:
            continue
        middle, most = median(past), max(past)
        noise = _NOISE * sqrt(max(middle * (1 - middle), 1 / n) / n)
        # What varied may vary twice as far; what never did may not.
        tolerance = max(case.argument("tolerance", default), noise, 2 * (most - middle))
        high = usual(past, tolerance, spreads).high or 0.0
        if (1 - most) * n >= _SURELY_OTHERS:
            # So many others never fail to come: half way to all of one kind is too far.
            high = min(high, (1 + most) / 2)
        found.append(Limits(None, high))
    return wider(found)


def is_grave(share: float, limits: Limits, groups: Sequence[Sequence[float]]) -> bool:
    """Say whether a share is so far beyond its limit that it is an error and no surprise.

    That is a tenth of all, or as far again as the limit lies from the usual share, whichever is more;
    but never more than half of the way from the limit to all.
    """
    high = limits.high or 0.0
    middle = max((median(past) for past in groups if past), default=0.0)
    return share >= min(high + max(_GRAVE, high - middle), (1 + high) / 2)
