"""Cards for other programs: a registry of exporters, each of which says what its target cannot carry."""

from collections.abc import Callable

from aimcard.models.card import Card
from aimcard.models.checks import check_choice
from aimcard.models.errors import InputError
from aimcard.models.export_aihwkit import to_aihwkit
from aimcard.models.export_csv import to_csv
from aimcard.models.export_form import Exported
from aimcard.models.export_json import to_json
from aimcard.models.export_spice import to_spice

__all__ = ["Exported", "Exporter", "export", "exporters", "register"]

Exporter = Callable[[Card], Exported]
_EXPORTERS: dict[str, Exporter] = {}


def register(name: str, exporter: Exporter) -> Exporter:
    """Add an exporter; InputError if the name is taken."""
    if name in _EXPORTERS:
        raise InputError(f"exporter: the name {name!r} is already registered; choose another name")
    _EXPORTERS[name] = exporter
    return exporter


def exporters() -> list[str]:
    """Names of the registered exporters."""
    return list(_EXPORTERS)


def export(card: Card, to: str) -> Exported:
    """The card in the form `to`; InputError lists the choices if there is no such exporter."""
    return _EXPORTERS[check_choice("--to", to, exporters())](card)


register("json", to_json)
register("csv", to_csv)
register("spice", to_spice)
register("aihwkit", to_aihwkit)
