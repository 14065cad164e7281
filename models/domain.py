"""The validity domain of a card: using it outside warns once, and says by how much."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from aimcard.models.checks import did_you_mean
from aimcard.models.errors import InputError, OutsideDomainWarning

if TYPE_CHECKING:
    from aimcard.models.card import Card

# What has been warned about: (content hash of the card, dimension).
_warned: set[tuple[str, str]] = set()
# A bound met up to rounding is met.
ROUNDING = 1e-9


def check_domain(card: "Card", **ranges: Any) -> list[str]:
    """Warn (OutsideDomainWarning) where a used value or range leaves the card's validity domain.

    Each keyword is a dimension of the domain (`conductance_s`, `code`, `wire_scale`, ...), its value a
    number, an array or a tensor in the domain's unit, of which the smallest and the largest count. A card
    warns once per dimension and process. Returns what is outside, warned about before or not. Raises
    InputError on a dimension that the card does not have, or NaN.
    """
    outside = []
    for name, values in ranges.items():
        if name not in card.domain:
            known = ", ".join(card.domain)
            raise InputError(f"{name}: expected a dimension of the domain, one of {known}{did_you_mean(name, card.domain)}")
        message = _excess(name, values, card.domain[name])
        if message is None:
            continue
        outside.append(message)
        key = (card.content_hash, name)
        if key not in _warned:
            _warned.add(key)
            advice = "the card's validation figures do not hold there"
            warnings.warn(f"{message}; {advice}", OutsideDomainWarning, stacklevel=2)
    return outside


def _excess(name: str, values: Any, interval: Any) -> str | None:
    plain = values.detach().cpu() if hasattr(values, "detach") else values
    array = np.asarray(plain, dtype=np.float64)
    if array.size == 0:
        return None
    low, high = float(array.min()), float(array.max())
    if np.isnan(low):
        raise InputError(f"{name}: expected numbers; got NaN")
    slack = ROUNDING * max(abs(interval.lo), abs(interval.hi))
    parts = []
    if high > interval.hi + slack:
        parts.append(_by_how_much(name, high, interval.hi, "above", interval.unit))
    if low < interval.lo - slack:
        parts.append(_by_how_much(name, low, interval.lo, "below", interval.unit))
    return " and ".join(parts) or None


def _by_how_much(name: str, value: float, bound: float, side: str, unit: str) -> str:
    # A share of a Celsius temperature means nothing, nor does one of zero.
    if bound == 0 or unit == "degC" or not np.isfinite(value):
        amount = f"{abs(value - bound):.3g}{'' if unit == '1' else ' ' + unit}"
    else:
        amount = f"{100 * abs(value - bound) / abs(bound):.3g} %"
    return f"{name} {value:.6g} is {amount} {side} the validated {bound:.6g}"
