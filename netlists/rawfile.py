"""Reader of ngspice's binary raw files (ngspice manual, section "Rawfile format")."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aimcard.models.errors import SimulationError


@dataclass(frozen=True, eq=False)
class RawPlot:
    """One analysis as ngspice wrote it.

    values: shape (variables, points), float64 or complex128; names: lower case, in the file's order.
    """

    title: str
    plot: str
    names: tuple[str, ...]
    values: np.ndarray


def read_raw(path: Path) -> RawPlot:
    """Read a binary raw file that holds exactly one plot.

    Raises `SimulationError` for a file that is missing, truncated, ASCII, without points or of several plots.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise SimulationError(f"{path}: expected a raw file, but ngspice wrote none") from None
    header, marker, body = content.partition(b"Binary:\n")
    if not marker:
        raise SimulationError(f"{path}: expected a binary raw file, found no 'Binary:' section")
    fields, names = _parse_header(path, header.decode("utf-8", "replace"))
    try:
        points, variables = int(fields["no. points"]), int(fields["no. variables"])
        number = np.dtype("<c16") if "complex" in fields["flags"].split() else np.dtype("<f8")
    except (KeyError, ValueError) as error:
        raise SimulationError(f"{path}: raw header is damaged ({error})") from None
    if len(names) != variables:
        raise SimulationError(f"{path}: raw header promises {variables} variables and lists {len(names)}")
    if points == 0:
        raise SimulationError(f"{path}: raw file holds no finished analysis (0 points)")
    size = points * variables * number.itemsize
    if len(body) < size:
        raise SimulationError(f"{path}: raw file is truncated: {len(body)} of {size} bytes of data")
    if len(body) > size:
        raise SimulationError(f"{path}: raw file holds several plots; put one analysis into each deck")
    values = np.frombuffer(body, dtype=number).reshape(points, variables).T
    return RawPlot(
        title=fields.get("title", ""),
        plot=fields.get("plotname", ""),
        names=tuple(names),
        values=values.copy(),
    )


def _parse_header(path: Path, header: str) -> tuple[dict[str, str], list[str]]:
    """Header fields (keys in lower case) and the variables' names."""
    top, marker, listing = header.partition("\nVariables:\n")
    if not marker:
        raise SimulationError(f"{path}: raw header has no list of variables")
    fields: dict[str, str] = {}
    for line in top.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields[key.strip().lower()] = value.strip()
    rows = [line.split() for line in listing.splitlines() if line.strip()]
    if any(len(row) < 3 for row in rows):
        raise SimulationError(f"{path}: raw header has a damaged list of variables")
    return fields, [row[1].lower() for row in rows]
