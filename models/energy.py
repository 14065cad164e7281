"""Energy of a line's window and of a tile's matrix product, by part, from a card's fitted coefficients.

A line draws its cells' current, and the bleed, through the regulator from V_DD; the mirror draws its own; OTA and
references a constant; the oscillator a current that follows the line's, a table. A word line costs a
charge per pulse, which does not depend on the pulse's length. What no transistor here does (clock and pulse
generators, counters, digital accumulation, the programming path) is left out, and `contract` says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aimcard.models.card import Card
from aimcard.models.checks import check_positive
from aimcard.models.errors import CardError, InputError

#: Parts of a tile's energy, in the order of the tables.
PARTS = ("drivers", "array", "read-out", "oscillator")
#: The card's table of the oscillator's supply current against the line's.
OSCILLATOR_TABLE = "oscillator_supply"
#: Parameters of a card that the energy model reads, all of group "energy".
ENERGY_PARAMETERS = ("q_pulse_c", "i_pulse_a", "i_driver_a", "i_bias_a", "i_bleed_a")


@dataclass(frozen=True)
class EnergyParameters:
    """Fitted numbers of the supplies; scalars.

    q_pulse_c: charge that a word line's driver takes from V_DD for one pulse; i_pulse_a: the current that it draws
    more while the pulse lasts; i_driver_a: its current at rest.
    i_bias_a: OTA and current references of one line's read-out; i_bleed_a: the regulator's current at no line current.
    word_columns: columns (pairs of lines) that one word line drives; the charge of a pulse is shared by them.
    """

    q_pulse_c: float
    i_pulse_a: float
    i_driver_a: float
    i_bias_a: float
    i_bleed_a: float
    vdd_v: float
    word_columns: int

    @classmethod
    def of(cls, card: Card) -> EnergyParameters:
        """The card's energy parameters; CardError if it was calibrated without supply currents."""
        values = card.values()
        missing = [name for name in ENERGY_PARAMETERS if name not in values]
        if missing or "word_columns" not in card.meta:
            first = missing[0] if missing else "word_columns"
            raise CardError(
                f"{card.source}: parameters/{first}: missing (the energy model needs it); "
                "calibrate from a set with supply currents, which `aimcard simulate` records for gated columns"
            )
        return cls(
            **{name: values[name] for name in ENERGY_PARAMETERS},
            vdd_v=float(card.meta["vdd_v"]), word_columns=int(card.meta["word_columns"]),
        )  # fmt: skip


def line_energy(
    p: EnergyParameters,
    line_charge_c: np.ndarray,
    mirror_charge_c: np.ndarray,
    oscillator_charge_c: np.ndarray,
    window_s: float,
) -> dict[str, np.ndarray]:
    """Energy of lines over one window [J], by part: ``array``, ``read-out``, ``oscillator``; shapes as the arguments'.

    line_charge_c: into the cells. mirror_charge_c: the mirror's output, bleed included. oscillator_charge_c: what the
    oscillator takes from its supply.
    """
    check_positive("window_s", window_s)
    return {
        "array": p.vdd_v * np.asarray(line_charge_c),
        "read-out": p.vdd_v * ((p.i_bias_a + p.i_bleed_a) * window_s + np.asarray(mirror_charge_c)),
        "oscillator": p.vdd_v * np.asarray(oscillator_charge_c),
    }


def driver_energy(
    p: EnergyParameters, pulses: np.ndarray, on_s: np.ndarray, rows: int, window_s: float
) -> np.ndarray:
    """Energy of all word lines' drivers over one window [J].

    pulses: how many pulses on all rows; on_s: how long they last in sum [s]; one shape, which is the result's.
    """
    charge = p.q_pulse_c * np.asarray(pulses, dtype=float) + p.i_pulse_a * np.asarray(on_s)
    return p.vdd_v * (charge + p.i_driver_a * rows * window_s)


@dataclass(frozen=True)
class TileEnergy:
    """Mean energy of one matrix-vector product of a tile [J], by part, and what it is counted over."""

    parts_j: dict[str, float]
    rows: int
    columns: int
    sign_phases: int
    window_s: float
    density: float

    @property
    def total_j(self) -> float:
        return sum(self.parts_j.values())

    @property
    def operations(self) -> int:
        """Multiplications and additions of one product: 2 × rows × columns, whatever the sign phases and zeros."""
        return 2 * self.rows * self.columns

    @property
    def tops_per_w(self) -> float:
        return self.operations / self.total_j / 1e12

    @property
    def contract(self) -> str:
        """What the figure counts and leaves out, for the reader of a table."""
        return (
            f"operations: 2 x {self.rows} rows x {self.columns} columns (a weight is a pair of lines), zeros included; "
            f"{self.sign_phases} sign phase{'s' * (self.sign_phases > 1)} of {self.window_s * 1e9:g} ns each; "
            f"{self.density:.0%} of the codes are not zero; counted: {', '.join(PARTS)}; left out: clock and pulse "
            "generation, counters, digital accumulation, programming, leakage of what is switched off"
        )

    def __str__(self) -> str:
        rows = [f"{name:>11} {1e9 * value:8.3f} nJ {value / self.total_j:6.1%}" for name, value in self.parts_j.items()]
        return "\n".join([*rows, f"{'total':>11} {1e9 * self.total_j:8.3f} nJ   {self.tops_per_w:.1f} TOPS/W"])


def tile_energy(
    p: EnergyParameters, line_charge_c: np.ndarray, mirror_charge_c: np.ndarray, oscillator_charge_c: np.ndarray,
    pulses: np.ndarray, on_s: np.ndarray, *, rows: int, columns: int, sign_phases: int, window_s: float, density: float,
) -> TileEnergy:  # fmt: skip
    """A tile of ``columns`` pairs of lines, from sampled lines and vectors of one sign phase.

    line_charge_c, mirror_charge_c, oscillator_charge_c: (vectors, lines); their mean stands for every line. pulses: (vectors,)
    word-line pulses of a sign phase and on_s (vectors,) their lengths in sum [s]; their means too.
    Raises InputError if shapes differ.
    """
    charges = (line_charge_c, mirror_charge_c, oscillator_charge_c)
    shapes = {np.shape(a) for a in charges}
    if len(shapes) != 1:
        raise InputError(f"line_charge_c, mirror_charge_c, oscillator_charge_c: expected one shape; got {shapes}")
    lines = 2 * columns
    energy = {n: float(np.mean(e)) * lines for n, e in line_energy(p, *charges, window_s).items()}
    # A word line of the simulated driver serves word_columns columns: a narrower tile has a shorter, cheaper one.
    share = columns / p.word_columns
    energy["drivers"] = float(np.mean(driver_energy(p, pulses, on_s, rows, window_s))) * share
    parts = {name: sign_phases * energy[name] for name in PARTS}
    return TileEnergy(parts, rows, columns, sign_phases, window_s, density)
