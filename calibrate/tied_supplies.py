"""Records of a tied tile's supplies: a row's source-line switches, and one column with all its supply currents."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aimcard.calibrate.plan import Options
from aimcard.calibrate.rings import window_charge
from aimcard.calibrate.simulate import SUPPLY_CODES, hash_of
from aimcard.calibrate.tied_columns import PairColumn
from aimcard.data.reference import Record
from aimcard.netlists.column import Pulses
from aimcard.netlists.ngspice import Waveforms, run_many
from aimcard.netlists.tied_driver import TiedDriverDesign, tied_driver_deck
from aimcard.netlists.tied_supply import rail_charges, source_supply


def source_supply_record(
    options: Options, design: TiedDriverDesign, t_lsb_s: float, v_read_v: float, cache_dir: str | Path | None, progress: bool
) -> Record:
    """What a row's pulse takes from V_DD and the rails, for pulses of a few lengths."""
    where = {"corner": options.corner, "temperature_c": options.temperature_c, "t_lsb_s": t_lsb_s, "v_read_v": v_read_v}
    decks = [tied_driver_deck(options.pdk, design, code, **where) for code in SUPPLY_CODES]
    waves = run_many(decks, options.jobs, cache_dir, "source lines' supply", progress)
    found = [source_supply(w, code, t_lsb_s) for w, code in zip(waves, SUPPLY_CODES, strict=True)]
    names = ("code", "window_s", "charge_c", "rest_a", "rail_c")
    arrays = {name: np.array([getattr(f, name) for f in found]) for name in names}
    attrs: dict[str, str | int | float] = {"columns": design.columns}
    return Record("driver-supply", "driver_supply", "fit", attrs, arrays, hash_of(sorted(w.deck_hash for w in waves)))


def supply_arrays(c: PairColumn, waves: list[list[Waveforms]], pulses: Pulses) -> dict[str, np.ndarray]:
    """Charges of V_DD and of the rails over the window, of a column whose deck recorded them; waves by vector and line."""
    if not c.supply:
        return {}
    vdd = [[window_charge(w, "i(vdd)", pulses, -1.0) for w in lines] for lines in waves]
    rails = [[rail_charges(w, codes, pulses) for w in lines] for lines, codes in zip(waves, c.codes, strict=True)]
    return {"vdd_charge_c": np.array(vdd), "rail_charge_c": np.array(rails)}
