"""Energy of a line's window and of a tile's matrix product, by part, from a card's fitted coefficients.

A line draws its cells' current, and the bleed, through the regulator from V_DD; the mirror draws its own; OTA and
references a constant; the oscillator a current that follows the line's, a table. A word line costs a
charge per pulse, which does not depend on the pulse's length. What no transistor here does (clock and pulse
generators, counters, digital accumulation, the programming path) is left out, and `contract` says so.

A tied tile has rails beside V_DD, one read voltage below, at and above the common mode. Each counts with its own voltage times
the charge that it delivers, as from an ideal regulator; the lowest takes charge back, and that counts as returned.
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
#: What a tied card has beside them: charges that a row's pulse takes from the rails.
RAIL_PARAMETERS = ("q_low_c", "q_mid_c", "q_high_c")


@dataclass(frozen=True)
class EnergyParameters:
    """Fitted numbers of the supplies; scalars.

    q_pulse_c: charge that a word line's driver takes from V_DD for one pulse; i_pulse_a: the current that it draws
    more while the pulse lasts; i_driver_a: its current at rest.
    i_bias_a: OTA and current references of one line's read-out; i_bleed_a: the regulator's current at no line current.
    word_columns: columns that one word line (tied: a row's two source lines) drives; the charge of a pulse is shared by them.
    lines: read-outs of a column, one for either sign of its weights, or one for both in a tied tile.
    rail_v, q_rail_c: voltages of a tied tile's rails and the charge that a row's pulse takes from each; empty in a gated one.
    """

    q_pulse_c: float
    i_pulse_a: float
    i_driver_a: float
    i_bias_a: float
    i_bleed_a: float
    vdd_v: float
    word_columns: int
    lines: int = 2
    rail_v: tuple[float, ...] = ()
    q_rail_c: tuple[float, ...] = ()

    @classmethod
    def of(cls, card: Card) -> EnergyParameters:
        """The card's energy parameters; CardError if it was calibrated without supply currents."""
        values, meta = card.values(), card.meta
        tied = meta["topology"] == "tied"
        missing = [name for name in (*ENERGY_PARAMETERS, *(RAIL_PARAMETERS if tied else ())) if name not in values]
        if missing or "word_columns" not in card.meta:
            first = missing[0] if missing else "word_columns"
            raise CardError(
                f"{card.source}: parameters/{first}: missing (the energy model needs it); "
                "calibrate from a set with supply currents, which `aimcard simulate` records"
            )
        rails = {}
        if tied:
            middle, step = float(meta["v_common_v"]), float(meta["v_read_v"])
            rails = {"lines": 1, "rail_v": (middle - step, middle, middle + step),
                     "q_rail_c": tuple(values[name] for name in RAIL_PARAMETERS)}  # fmt: skip
        return cls(
            **{name: values[name] for name in ENERGY_PARAMETERS},
            vdd_v=float(meta["vdd_v"]), word_columns=int(meta["word_columns"]), **rails,
        )  # fmt: skip

    def rail_energy(self, charge_c: np.ndarray) -> np.ndarray:
        """Energy [J] of charges (..., rails) from the rails."""
        return np.asarray(charge_c) @ np.array(self.rail_v)

    def linear_excess(self, charge_c: np.ndarray) -> np.ndarray:
        """What the same charges cost more if linear regulators make the rails from V_DD, and lose what flows back [J]."""
        charge = np.asarray(charge_c)
        return np.maximum(charge, 0.0).sum(-1) * self.vdd_v - self.rail_energy(charge)


def line_energy(
    p: EnergyParameters,
    line_charge_c: np.ndarray,
    mirror_charge_c: np.ndarray,
    oscillator_charge_c: np.ndarray,
    window_s: float,
    rail_charge_c: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Energy of lines over one window [J], by part: ``array``, ``read-out``, ``oscillator``; shapes as the arguments'.

    line_charge_c: into the cells. mirror_charge_c: the mirror's output, bleed included. oscillator_charge_c: what the
    oscillator takes from its supply. rail_charge_c: from the rails of a tied tile, (..., rails).
    """
    check_positive("window_s", window_s)
    return {
        "array": p.vdd_v * np.asarray(line_charge_c) + (0.0 if rail_charge_c is None else p.rail_energy(rail_charge_c)),
        "read-out": p.vdd_v * ((p.i_bias_a + p.i_bleed_a) * window_s + np.asarray(mirror_charge_c)),
        "oscillator": p.vdd_v * np.asarray(oscillator_charge_c),
    }


def driver_energy(
    p: EnergyParameters, pulses: np.ndarray, on_s: np.ndarray, rows: int, window_s: float
) -> np.ndarray:
    """Energy of all rows' drivers over one window [J].

    pulses: how many pulses on all rows; on_s: how long they last in sum [s]; one shape, which is the result's.
    """
    charge = p.q_pulse_c * np.asarray(pulses, dtype=float) + p.i_pulse_a * np.asarray(on_s)
    rails = np.asarray(pulses, dtype=float) * p.rail_energy(np.array(p.q_rail_c)) if p.rail_v else 0.0
    return p.vdd_v * (charge + p.i_driver_a * rows * window_s) + rails


@dataclass(frozen=True)
class TileEnergy:
    """Mean energy of one matrix-vector product of a tile [J], by part, and what it is counted over."""

    parts_j: dict[str, float]
    rows: int
    columns: int
    sign_phases: int
    window_s: float
    density: float
    lines: int = 2
    linear_excess_j: float = 0.0

    @property
    def total_j(self) -> float:
        """Energy of all parts [J]."""
        return sum(self.parts_j.values())

    @property
    def operations(self) -> int:
        """Multiplications and additions of one product: 2 × rows × columns, whatever the sign phases and zeros."""
        return 2 * self.rows * self.columns

    @property
    def tops_per_w(self) -> float:
        """Tera-operations a second and watt: operations over energy."""
        return self.operations / self.total_j / 1e12

    @property
    def contract(self) -> str:
        """What the figure counts and leaves out, for the reader of a table."""
        weight = "pair of lines" if self.lines == 2 else "pair of cells on one line"
        rails = (
            "" if self.lines == 2 else
            "; rails of source lines from ideal regulators, voltage times charge of each, what flows back returned: made "
            f"linearly from V_DD they cost {self.linear_excess_j * 1e9:.3g} nJ more"
        )  # fmt: skip
        return (
            f"operations: 2 x {self.rows} rows x {self.columns} columns (a weight is a {weight}), zeros included; "
            f"{self.sign_phases} sign phase{'s' * (self.sign_phases > 1)} of {self.window_s * 1e9:g} ns each; "
            f"{self.density:.0%} of the codes are not zero; counted: {', '.join(PARTS)}; left out: clock and pulse "
            f"generation, counters, digital accumulation, programming, leakage of what is switched off{rails}"
        )

    def __str__(self) -> str:
        rows = [f"{name:>11} {1e9 * value:8.3f} nJ {value / self.total_j:6.1%}" for name, value in self.parts_j.items()]
        return "\n".join([*rows, f"{'total':>11} {1e9 * self.total_j:8.3f} nJ   {self.tops_per_w:.1f} TOPS/W"])


def tile_energy(
    p: EnergyParameters, line_charge_c: np.ndarray, mirror_charge_c: np.ndarray, oscillator_charge_c: np.ndarray,
    pulses: np.ndarray, on_s: np.ndarray, *, rows: int, columns: int, sign_phases: int, window_s: float, density: float,
    rail_charge_c: np.ndarray | None = None,
) -> TileEnergy:  # fmt: skip
    """A tile of ``columns`` columns (pairs of lines, or lines in a tied tile), from sampled lines and vectors of one sign phase.

    line_charge_c, mirror_charge_c, oscillator_charge_c: (vectors, lines); their mean stands for every line. pulses: (vectors,)
    rows' pulses of a sign phase and on_s (vectors,) their lengths in sum [s]; their means too. rail_charge_c (vectors,
    lines, rails): what a tied tile's rails deliver to the lines.
    Raises InputError if shapes differ.
    """
    charges = (line_charge_c, mirror_charge_c, oscillator_charge_c)
    shapes = {np.shape(a) for a in charges}
    if len(shapes) != 1:
        raise InputError(f"line_charge_c, mirror_charge_c, oscillator_charge_c: expected one shape; got {shapes}")
    lines = p.lines * columns
    energy = {n: float(np.mean(e)) * lines for n, e in line_energy(p, *charges, window_s, rail_charge_c).items()}
    # A word line of the simulated driver serves word_columns columns: a narrower tile has a shorter, cheaper one.
    share = columns / p.word_columns
    energy["drivers"] = float(np.mean(driver_energy(p, pulses, on_s, rows, window_s))) * share
    parts = {name: sign_phases * energy[name] for name in PARTS}
    excess = 0.0
    if rail_charge_c is not None:
        per_rail = np.reshape(rail_charge_c, (-1, len(p.rail_v))).mean(0) * lines
        own = float(np.mean(pulses)) * share * np.array(p.q_rail_c)
        excess = sign_phases * float(p.linear_excess(per_rail + own))
    return TileEnergy(parts, rows, columns, sign_phases, window_s, density, p.lines, excess)
