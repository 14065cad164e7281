"""Figures: the files exist, the axes say what is drawn in which unit, the data drawn are the data."""

import matplotlib.image
import numpy as np
import pytest

from aimcard.data.reference import Record
from aimcard.models.adc import inl_dnl
from aimcard.models.errors import InputError
from aimcard.models.tile import TileModel, adc_parameters
from aimcard.validation.figures import parity, residuals, scores, waveform, wire_scale, write_all
from aimcard.validation.readout_figures import lut, readout
from aimcard.validation.report import validate
from aimcard.validation.style import PREDICTOR_STYLE, si

DISTRIBUTIONS = ("gaussian", "uniform", "sparse", "all-on")


def with_waveform(record: Record, vector: int = 2) -> Record:
    """Adds a 10 ps waveform: the slot means as a staircase with a spike at each edge."""
    arrays = dict(record.arrays)
    time = np.arange(0, 17e-9, 10e-12)
    slot = np.minimum((time / 1e-9 + 1e-6).astype(int), 16)
    spike = np.exp(-(time - 1e-9 * slot) / 30e-12)
    arrays["waveform_time_s"] = time
    for name in ("current_a", "mirror_a"):
        if name in arrays:
            steps = arrays[name][vector][:, slot]
            arrays[name.replace("current_a", "waveform_a").replace("mirror_a", "mirror_waveform_a")] = (
                steps * (1 + 0.3 * spike)
            )
    return Record(record.name, "column", record.role, {**record.attrs, "waveform_vector": vector}, arrays)


@pytest.fixture(scope="module")
def everything(card_of, column_of, set_of, readout_records):
    """Card, reference set and result with every kind of data that a figure shows."""
    records = []
    for clamp in ("ideal", "ota"):
        for distribution in DISTRIBUTIONS:
            for k in range(2):
                name = f"{clamp}-{distribution}-{k}"
                error = (1 + 2 * k) * 2e-9
                r = column_of(
                    name,
                    seed=k,
                    clamp=clamp,
                    distribution=distribution,
                    error_a=error,
                    error_count=0.05 * (1 + k),
                )
                records.append(with_waveform(r) if (distribution, k) == ("gaussian", 0) else r)
    for scale in (2.0, 3.0, 10.0):
        records.append(column_of(f"wire{scale:g}", wire_scale=scale, error_a=2e-9 * scale))
    first = records[0]
    shifted = {**first.arrays, "codes": first["codes"][:2], "current_a": first["current_a"][:2] + 1e-10}
    tight = {name: shifted[name] for name in ("conductance_s", "codes", "current_a", "slot_edge_s")}
    records.append(Record("tight", "column", "floor", {**first.attrs, "of": first.name}, tight))
    card, reference = card_of(), set_of(*records, *readout_records)
    return card, reference, validate(card, reference, progress=False)


def texts(figure) -> list[str]:
    return [t.get_text() for ax in figure.axes for t in (ax.xaxis.label, ax.yaxis.label, ax.title)]


def assert_nothing_clipped(figure) -> None:
    """All text lies inside the picture."""
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    found = []
    for ax in (ax for ax in figure.axes if ax.get_visible()):
        found += [ax.xaxis.label, ax.yaxis.label, ax.title]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    found += [t for legend in figure.legends for t in legend.get_texts()] + figure.texts
    assert found
    for text in found:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert box.x0 >= -1, text.get_text()
            assert box.y0 >= -1, text.get_text()
            assert box.x1 <= width + 1, text.get_text()
            assert box.y1 <= height + 1, text.get_text()


def test_every_figure_is_written_and_the_same_again(everything, tmp_path):
    paths = write_all(*everything, tmp_path / "figures")
    assert [p.stem for p in paths] == [
        "scores", "waveform_ideal", "parity_ideal", "waveform_ota", "parity_ota", "residuals_current",
        "residuals_charge", "residuals_phase", "wire_scale", "lut", "readout",
    ]  # fmt: skip
    for path in paths:
        image = matplotlib.image.imread(path)
        assert min(image.shape[:2]) > 300
        assert image[..., :3].std() > 0.01
    again = write_all(*everything, tmp_path / "again")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]


def test_only_what_there_is_data_for_is_drawn(card_of, column_of, set_of, tmp_path):
    card, reference = card_of(readout=False), set_of(column_of())
    result = validate(card, reference)
    names = [p.stem for p in write_all(card, reference, result, tmp_path)]
    assert names == ["scores", "parity_ideal", "residuals_current", "residuals_charge"]
    with pytest.raises(InputError, match="expected a waveform to draw"):
        waveform(result.data_sets["ideal-gaussian-1x"].records[0])
    with pytest.raises(InputError, match="two wire scales"):
        wire_scale(result)
    with pytest.raises(InputError, match="without the table 'adc'"):
        lut(card)
    with pytest.raises(InputError, match="readout_dc or loop_gain"):
        readout(card, reference)


@pytest.mark.parametrize(("clamp", "what"), [("ideal", "line current (µA)"), ("ota", "mirror current (µA)")])
def test_waveform_shows_the_recorded_vector_and_the_residual(everything, clamp, what):
    result = everything[2].data_sets[f"{clamp}-gaussian-1x"].records[0]
    figure = waveform(result)
    top, _, below, _ = figure.axes
    assert (top.get_ylabel(), below.get_xlabel()) == (what, "time (ns)")
    assert below.get_ylabel() == "model − reference\n(nA)"
    means, model = (p.get_data().values for p in top.patches)
    truth = result.record["current_a" if clamp == "ideal" else "mirror_a"][2, 0]
    np.testing.assert_allclose(means, 1e6 * truth)
    np.testing.assert_allclose(model, 1e6 * (truth - 2e-9), rtol=1e-9)  # the error put into vector 2
    np.testing.assert_allclose(below.patches[0].get_data().values, -2.0, rtol=1e-6)
    assert [t.get_text() for t in top.get_legend().get_texts()] == [
        "reference, waveform", "reference, slot means", "model card, slot means",
    ]  # fmt: skip
    assert_nothing_clipped(figure)


def test_parity_has_every_distribution_and_its_residual(everything):
    result = everything[2]
    figure = parity(result, "ota")
    charge, phase, charge_error, phase_error = figure.axes
    assert charge.get_ylabel() == "predicted charge (fC)"
    assert charge_error.get_xlabel() == "charge in the reference (fC)"
    assert phase.get_ylabel() == "predicted ADC phase (counts)"
    assert phase_error.get_ylabel() == "model − reference\n(counts)"
    drawn = np.concatenate([line.get_ydata() for line in phase_error.lines if len(line.get_xdata()) > 2])
    np.testing.assert_allclose(np.unique(np.abs(drawn).round(6)), [0.05, 0.1])
    labels = [t.get_text() for t in charge.get_legend().get_texts()]
    assert labels == [*(f"model card, {d}" for d in DISTRIBUTIONS), "ideal MAC"]
    assert len(parity(result, "ideal").axes) == 2
    assert_nothing_clipped(figure)


def test_residuals_have_a_panel_a_data_set_and_a_curve_a_predictor(everything):
    result = everything[2]
    figure = residuals(result, "charge")
    assert [ax.xaxis.get_major_ticks()[0].label1.get_visible() for ax in figure.axes] == [False] * 7 + [
        True
    ] * 5
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in panels] == list(result.data_sets)
    assert {ax.get_xscale() for ax in panels} == {"log"}
    assert [len(ax.lines) for ax in panels] == [4] + [3] * (len(panels) - 1)  # one has a floor
    truth = [1e-9 * r.record["current_a"].sum(-1) for r in result.data_sets["ideal-gaussian-1x"].records]
    sigma = np.concatenate([q.std(axis=0) for q in truth])
    expected = np.sort(np.repeat(17e-9 * np.repeat([2e-9, 6e-9], 2) / sigma, 6))
    np.testing.assert_allclose(panels[0].lines[0].get_xdata(), expected, rtol=1e-6)
    np.testing.assert_allclose(panels[0].lines[0].get_ydata()[-1], 1)
    assert figure.get_supxlabel() == "|error| of the charge / σ_MAC of its line"
    assert_nothing_clipped(figure)


def test_scores_show_the_json_on_a_log_axis_with_the_aims(everything):
    result = everything[2]
    figure = scores(result)
    current, charge, phase = figure.axes
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "1 − R² of the current", "1 − R² of the charge", "1 − R² of the ADC phase",
    ]  # fmt: skip
    assert {ax.get_xscale() for ax in figure.axes} == {"log"}
    assert [t.get_text() for t in current.get_yticklabels()] == list(result.data_sets)
    for y, (name, data_set) in enumerate(result.data_sets.items()):
        row = {
            line.get_marker(): line.get_xdata()[0] for line in charge.lines if list(line.get_ydata()) == [y]
        }
        for predictor, (_, marker, _) in PREDICTOR_STYLE.items():
            values = data_set.summary["charge"].get(predictor)
            assert row.get(marker) == (values["one_minus_r2"] if values else None)
        limits = {"ideal-gaussian-3x": 1e-5, "ideal-gaussian-10x": 1e-4, "ideal-gaussian-2x": None}
        assert row.get("|") == limits.get(name, 1e-6 if name.startswith("ideal") else 1e-5)
    assert not [line for line in phase.lines if line.get_ydata()[0] < 4]
    assert_nothing_clipped(figure)


def test_wire_scale_is_on_the_axis_with_the_aims(everything):
    figure = wire_scale(everything[2])
    (ax,) = figure.axes
    model, affine, ideal, _, aims = ax.lines
    np.testing.assert_allclose(model.get_xdata(), [1, 2, 3, 10])
    assert list(aims.get_ydata()) == [1e-6, 1e-5, 1e-4]
    sets = [everything[2].data_sets[f"ideal-gaussian-{scale}x"].summary["charge"] for scale in (1, 2, 3, 10)]
    for line, name in ((model, "model"), (affine, "ideal_affine"), (ideal, "ideal")):
        assert list(line.get_ydata()) == [s[name]["one_minus_r2"] for s in sets]
    assert ax.get_xlabel() == "wire resistance per cell / nominal"
    assert ax.get_ylabel() == "1 − R² of the charge"
    assert ax.get_title() == "ideal clamp, gaussian inputs"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "3", "10"]
    assert_nothing_clipped(figure)


def test_lut_shows_rate_inl_and_dnl(everything):
    card, reference, _ = everything
    figure = lut(card, reference)
    rate, inl, dnl = figure.axes
    assert [ax.get_ylabel() for ax in figure.axes] == ["count rate (GHz)", "INL (steps)", "DNL (steps)"]
    assert dnl.get_xlabel() == "line current (µA)"
    model = TileModel(card)
    _, expected, steps = inl_dnl(adc_parameters(model.values, model.tables))
    np.testing.assert_allclose(inl.lines[0].get_ydata(), expected.numpy())
    np.testing.assert_allclose(dnl.patches[0].get_data().values, steps.numpy())
    table, knots = rate.lines[0], rate.lines[1]
    np.testing.assert_allclose(np.interp(knots.get_xdata(), *table.get_data()), knots.get_ydata(), rtol=2e-3)
    assert_nothing_clipped(figure)


def test_readout_shows_clamp_mirror_loop_gain_and_phase_margin(everything):
    card, reference, _ = everything
    figure = readout(card, reference)
    clamp, mirror, gain, margin = figure.axes
    assert (clamp.get_ylabel(), mirror.get_ylabel()) == ("clamp voltage (mV)", "mirror current (µA)")
    assert (gain.get_xlabel(), gain.get_ylabel()) == ("frequency (GHz)", "loop gain (dB)")
    assert (margin.get_xlabel(), margin.get_ylabel()) == ("line current (µA)", "phase margin (deg)")
    assert [t.get_text() for t in gain.get_legend().get_texts()] == ["0 µA", "50 µA", "100 µA"]
    np.testing.assert_allclose(margin.lines[0].get_ydata(), reference["loop_gain"]["phase_margin_deg"])
    np.testing.assert_allclose(clamp.lines[0].get_ydata()[-1], 1e3 * (0.2 - 18 * 100e-6))
    assert_nothing_clipped(figure)


def test_si_prefixes():
    assert si(3e-6, "A") == (pytest.approx(1e6), "µA")
    assert si(np.array([1e-15, -2e-12]), "C") == (pytest.approx(1e12), "pC")
    assert si(1e-3, "V") == (pytest.approx(1e3), "mV")
    assert si(999e-6, "V") == (pytest.approx(1e6), "µV")
    assert si(12.5e9, "Hz") == (pytest.approx(1e-9), "GHz")
    assert si(1234.0, "counts") == (1.0, "counts")
    assert si(0.0, "A") == (1.0, "A")
