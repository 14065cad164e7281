"""Energy: conservation, known answers, and the supplies of a simulated driver."""

import attrs
import numpy as np
import pytest

from aimcard.calibrate.energy import supply_residual
from aimcard.calibrate.fit import tensors
from aimcard.data.reference import Record
from aimcard.data.shipped import shipped_card
from aimcard.models.card import Card
from aimcard.models.energy import PARTS, EnergyParameters, driver_energy, line_energy, tile_energy
from aimcard.models.errors import CardError, InputError
from aimcard.netlists.driver import DriverDesign, driver_deck, driver_supply
from aimcard.netlists.ngspice import run
from aimcard.netlists.technology import get_technology
from aimcard.validation.energy import energy_study, energy_table

P = EnergyParameters(1e-12, 2e-6, 1e-6, 1e-4, 1e-5, vdd_v=0.9, word_columns=512)


def test_energy_is_charge_times_supply_voltage_part_by_part():
    e = line_energy(P, np.array(5e-12), np.array(1e-12), np.array(7e-12), 100e-9)
    assert e["array"] == pytest.approx(0.9 * 5e-12)
    assert e["oscillator"] == pytest.approx(0.9 * 7e-12)
    assert e["read-out"] == pytest.approx(0.9 * ((1e-4 + 1e-5) * 100e-9 + 1e-12))


def test_drivers_pay_for_pulses_their_length_and_rest():
    assert driver_energy(P, np.array(0), np.array(0.0), 4, 1e-7) == pytest.approx(0.9 * 1e-6 * 4e-7)
    more = driver_energy(P, np.array(3), np.array(3e-8), 4, 1e-7) - driver_energy(P, np.array(0), np.array(0.0), 4, 1e-7)
    assert more == pytest.approx(0.9 * (3e-12 + 2e-6 * 3e-8))


def tile(columns=512, sign_phases=2, **changes):
    charges = {name: np.full((3, 4), 1e-12) for name in ("line_charge_c", "mirror_charge_c", "oscillator_charge_c")}
    given = charges | {"pulses": np.full(3, 256), "on_s": np.full(3, 1e-8)} | changes
    return tile_energy(P, **given, rows=512, columns=columns, sign_phases=sign_phases, window_s=1e-7, density=0.5)


def test_a_tile_is_its_lines_and_its_drivers():
    e = tile()
    one = sum(float(v) for v in line_energy(P, np.array(1e-12), np.array(1e-12), np.array(1e-12), 1e-7).values())
    drivers = float(driver_energy(P, np.array(256), np.array(1e-8), 512, 1e-7))
    assert e.total_j == pytest.approx(2 * (1024 * one + drivers))
    assert e.tops_per_w == pytest.approx(2 * 512 * 512 / e.total_j / 1e12)
    assert tuple(e.parts_j) == PARTS


def test_energy_goes_with_columns_and_sign_phases_and_so_tops_per_w_does_not_go_with_columns():
    assert tile(columns=128).total_j == pytest.approx(tile().total_j / 4)
    assert tile(columns=128).tops_per_w == pytest.approx(tile().tops_per_w)
    assert tile(sign_phases=1).total_j == pytest.approx(tile().total_j / 2)


def test_charges_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="expected one shape"):
        tile(mirror_charge_c=np.zeros((3, 5)))


def test_a_card_without_supplies_says_what_is_missing():
    card = Card.read(shipped_card())
    bare = attrs.evolve(card, parameters=[p for p in card.parameters if p.group != "energy"], correlation_names=(),
                        correlation=np.zeros((0, 0)))  # fmt: skip
    with pytest.raises(CardError, match="q_pulse_c: missing"):
        EnergyParameters.of(bare)


def test_the_shipped_card_prints_a_table_with_its_contract():
    study = energy_study(Card.read(shipped_card()), pairs=2, vectors=2)
    text = energy_table([study])
    assert "TOPS/W" in text
    assert "2 sign phases" in text
    assert "left out: clock" in text
    # A pair's OTA alone draws 0.14 mA for two windows of 131 ns: the tile cannot be cheaper than its biases.
    assert study.energy.total_j > 2 * 1024 * 0.137e-3 * 131e-9
    assert study.to_json()["total_j"] == pytest.approx(sum(study.energy.parts_j.values()))


def test_a_driver_takes_the_charge_of_its_word_line_and_gates():
    technology = get_technology("freepdk45")
    small = DriverDesign(columns=64, sections=4, w_last_um=5.0)
    found = [driver_supply(run(driver_deck(technology, small, code)), code) for code in (1, 4)]
    pulse = [f.charge_c - f.rest_a * f.window_s for f in found]
    # Wire and 128 gates of 0.5/0.05 um, some 0.5 fF each: C V_DD at least, and no more than a few times that.
    least = (64 * 0.3e-15 + 128 * 0.4e-15) * technology.vdd_v
    assert least < pulse[0] < 4 * least
    # A longer pulse costs its leakage only.
    assert pulse[1] == pytest.approx(pulse[0], rel=0.05)


def test_the_fits_residuals_vanish_for_supplies_that_follow_the_model():
    v = {"q_pulse_c": 1e-12, "i_pulse_a": 2e-6, "i_driver_a": 1e-6, "i_bias_a": 1e-4, "i_bleed_a": 1e-5}
    line, code = np.linspace(1e-6, 1e-4, 5), np.array([1, 4, 12])
    mirror = line / 8
    static = Record("s", "readout_dc", "fit", {}, {"current_a": line, "v_clamp_v": 0.2 - line, "mirror_a": mirror,
                    "regulator_a": line + 1e-5, "supply_a": line + 1e-5 + mirror + 1e-4})  # fmt: skip
    window = np.array([3e-9, 6e-9, 14e-9])
    drivers = Record("d", "driver_supply", "fit", {}, {"code": code, "window_s": window, "rest_a": np.full(3, 1e-6),
                     "charge_c": 1e-12 + 2e-6 * code * 1e-9 + 1e-6 * window})  # fmt: skip
    residual, owner = supply_residual(static, drivers, 1e-9)
    assert residual(tensors(v)).abs().max() < 1e-9
    assert len(owner) == len(residual(tensors(v)))
    assert residual(tensors(v | {"q_pulse_c": 2e-12})).abs().max() > 1
