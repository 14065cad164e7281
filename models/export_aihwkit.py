"""A card as the nearest configuration of IBM's aihwkit, as a Python file.

The target is ``TorchInferenceRPUConfigIRDropT`` (aihwkit 1.1, ``simulator/tiles/analog_mvm_irdrop_t.py``): pulse-width
inputs in time steps of one LSB, conductance pairs, a Thévenin ladder of each column in every step, and an ADC that
counts charge. Its columns are tied (source lines at 0.4 V ± 0.2 V, fixed in its code), and its cells are ohmic: a tied
card's are one number each too, PCM and transistor in series, so its file brings a converter that makes them.
"""

from __future__ import annotations

import math

from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.export_form import Exported
from aimcard.models.lut import lookup
from aimcard.models.source_line import with_source_line
from aimcard.models.tied import on_resistance
from aimcard.models.tied_tile import TiedTile
from aimcard.models.tile import TileModel
from aimcard.models.topology import Tile, tile_of

#: aihwkit's own constants: the drive beside the common mode [V], and the current at which its ADC's frequency is given [A].
DRIVE_V = 0.2
ADC_AT_A = 100e-6
_ABOUT = "standard errors, bounds, correlations, validity domain, validation figures, provenance"
_MODES = {"conventional": "ONE_PASS", "split": "SPLIT_MODE", "bitwise": "BIT_WISE"}

_TEMPLATE = '''\
"""aihwkit configuration nearest to the aimcard card {hash}.

{what}. Needs aihwkit 1.1 or newer.
"""

{imports}from aihwkit.inference import PCMLikeNoiseModel, SinglePairConductanceConverter
from aihwkit.simulator.configs import TorchInferenceRPUConfigIRDropT
from aihwkit.simulator.parameters.enums import AnalogMVType, BoundManagementType, NoiseManagementType

{converter}
def rpu_config() -> TorchInferenceRPUConfigIRDropT:
    """A new configuration; IR-drop acts in evaluation (``model.eval()``) only."""
    config = TorchInferenceRPUConfigIRDropT()
    config.mapping.max_input_size = {rows}  # rows of a tile
    config.mapping.max_output_size = 512  # columns; an odd number of outputs fails in aihwkit

    forward = config.forward
    forward.mv_type = AnalogMVType.{mode}
    forward.inp_bound = 1.0
    forward.inp_res = 1 / {steps}  # codes -{code_max} to {code_max}
    forward.ir_drop = 1.0  # wire scale
    forward.ir_drop_rs = {rs!r}  # Ohm a cell: bit line {r_bit:.6g}, return line {r_return:.6g}
    forward.ir_drop_segments = {segments}
    forward.ir_drop_v_read = 0.4  # the common mode: an ideal clamp; the default's 0.5 mV would be an offset
    forward.ir_drop_integration_sum = True  # the default trapezoid rule adds half an LSB to every pulse
    forward.adc_quantization = {adc}
    forward.adc_frequency = {frequency!r}  # GHz at 100 uA: counts per 100 fC
    forward.out_res = -1  # no second quantisation
    forward.out_bound = 0.0  # no saturation
    forward.out_noise = 0.0
    forward.noise_management = NoiseManagementType.ABS_MAX  # each vector's largest input is the largest code
    forward.bound_management = BoundManagementType.NONE

    # The card says nothing of PCM noise and drift: 1.0 in place of 0.0 takes aihwkit's own statistics.
    config.noise_model = PCMLikeNoiseModel(
        g_converter={converter_name}(g_max={g_max!r}, g_min={g_min!r}),  # uS
        prog_noise_scale=0.0,
        read_noise_scale=0.0,
        drift_scale=0.0,
    )
    config.drift_compensation = None
    return config


if __name__ == "__main__":
    import torch
    from aihwkit.nn import AnalogLinear

    torch.manual_seed(1)
    digital = torch.nn.Linear({rows}, 16, bias=False)
    torch.nn.init.normal_(digital.weight, std=0.1)
    analog = AnalogLinear.from_digital(digital, rpu_config()).eval()
    x = torch.randn(4, {rows})
    with torch.no_grad():
        error = analog(x) - digital(x)
        print(f"rms error {{error.std() / digital(x).std():.4f}} of the product's")
'''

_TIED_CONVERTER = '''
class TiedCells(SinglePairConductanceConverter):
    """Pairs of PCMs, each in series with its select transistor, behind source lines that lose part of the read voltage."""

    R_ON_MOHM = {r_on_mohm!r}  # the transistor at the common mode
    GAIN = {gain!r}  # share of 0.2 V that arrives at a column in the middle of a row

    def convert_to_conductances(self, weights: Tensor) -> tuple[list[Tensor], dict]:
        """Conductances of the cells, uS. The loss is in the scale: it lessens a current, but loads no wire."""
        pcm, params = super().convert_to_conductances(weights)
        cells = [g / (1 + g * self.R_ON_MOHM) for g in pcm]
        return cells, params | {{"scale_ratio": params["scale_ratio"] / self.GAIN}}

    def convert_back_to_weights(self, conductances: list[Tensor], params: dict) -> Tensor:
        """Weights of cells, which noise or drift may have changed."""
        pcm = [g / (1 - g * self.R_ON_MOHM) for g in conductances]
        return super().convert_back_to_weights(pcm, params | {{"scale_ratio": params["scale_ratio"] * self.GAIN}})

'''


def to_aihwkit(card: Card) -> Exported:
    """The configuration's file: a function ``rpu_config`` and a small run.

    Raises InputError for a card whose read voltage is not aihwkit's, which it has fixed in its code.
    """
    meta = card.meta
    if not math.isclose(float(meta["v_read_v"]), DRIVE_V, rel_tol=1e-9):  # type: ignore[arg-type]
        raise InputError(
            f"--to aihwkit: expected a card with a read voltage of {DRIVE_V} V, which aihwkit has fixed; "
            f"got {meta['v_read_v']} V; choose another form"
        )
    model = tile_of(card)
    rows, code_max = int(meta["rows"]), model.code_max
    r_bit, r_return = model.values["r_bit_ohm"], model.values.get("r_return_ohm", 0.0)
    g = card.domain["conductance_s"]
    what = ", ".join(str(meta[key]) for key in ("topology", "mode", "technology", "corner"))
    tied = isinstance(model, TiedTile)
    converter = _TIED_CONVERTER.format(r_on_mohm=_digits(_r_on_ohm(model) * 1e-6), gain=_digits(_gain(model))) if tied else ""
    text = _TEMPLATE.format(
        hash=card.content_hash[:12], rows=rows, code_max=code_max, steps=2 * code_max,
        what=f"{what}, {meta['temperature_c']:g} degC", imports="from torch import Tensor\n\n" if tied else "",
        converter=converter, converter_name="TiedCells" if tied else "SinglePairConductanceConverter",
        mode=_MODES.get(str(meta["mode"]), "ONE_PASS"), rs=float(r_bit + r_return), r_bit=r_bit, r_return=r_return,
        segments=_segments(rows, int(meta["segments"])), adc=model.has_readout, frequency=_adc_frequency(model),
        g_max=_digits(g.hi * 1e6), g_min=_digits(g.lo * 1e6),
    )  # fmt: skip
    return Exported(text, _tied_left_out(model) if isinstance(model, TiedTile) else _left_out(model))


def _digits(value: float) -> float:
    return float(f"{value:.12g}")


def _r_on_ohm(tile: TiedTile) -> float:
    cell, _, _ = tile.parameters()
    return float(on_resistance(cell, float(tile.card.meta["w_select_um"])))


def _gain(tile: TiedTile) -> float:
    """Share of the read voltage that arrives at a column in the middle of its rows, mean of the way down and up."""
    cell, _, _ = tile.parameters()
    gain = with_source_line(cell, tile.source_line, 0.5).gain
    return 0.5 * (float(gain.down_plus) + float(gain.up_plus))


def _segments(rows: int, segments: int) -> int:
    """The largest number of segments up to the card's that divides the rows, as aihwkit wants it."""
    return max(n for n in range(1, min(rows, segments) + 1) if rows % n == 0)


def _adc_frequency(model: Tile) -> float:
    """Counts per 100 fC [GHz at 100 µA], times the LSB in ns, in which aihwkit counts its steps.

    gated: the count rate at 100 µA less that of the idle line. tied: half the difference of the rates at ±100 µA, of
    currents that are what the source lines' loss leaves of aihwkit's.
    """
    if not model.has_readout:
        return 6.24
    x, rate = model.tables["adc"]
    low, at = lookup(x, rate, x.new_tensor([-ADC_AT_A if isinstance(model, TiedTile) else 0.0, ADC_AT_A])).tolist()
    part = 0.5 * _gain(model) if isinstance(model, TiedTile) else 1.0
    return float(f"{(at - low) * part * 1e-9 * model.t_lsb_s * 1e9:.9g}")


def _left_out(model: TileModel) -> list[str]:
    topology, mode = str(model.card.meta["topology"]), str(model.card.meta["mode"])
    left = [
        f"the {topology} column: aihwkit's are tied, its IR-drop does not depend on which other cells are on",
        *_mode_left_out(mode),
        "the select transistor: apparent weight, leakage, gate current (cells are ohmic)",
        "what a pulse's edges add: charges, delays, recharge of internal nodes",
        "bit and return line apart: their sum is one wire",
        "odd columns' direction: aihwkit reads every second column from the other end",
    ]
    if model.has_readout:
        left += [
            "clamp voltage against current and its lag: the clamp is ideal",
            "the oscillator's curve, start and bleed: its mean gain from 0 to 100 uA is kept, and truncation",
        ]
    else:
        left.append("an ADC: the card has no read-out, so quantisation is off")
    return [*left, _ABOUT]


def _mode_left_out(mode: str) -> list[str]:
    return [] if mode in _MODES else [f"the PWM mode {mode}: conventional pulses (ONE_PASS) stand for it"]


def _tied_left_out(tile: TiedTile) -> list[str]:
    left = [
        *_mode_left_out(str(tile.card.meta["mode"])),
        "what of a cell changes with the sign of its input and with the column's voltage: R_on is one number",
        "the cells' gate current, which the card's column carries at rest",
        "source lines: their loss is that of the middle column, for every column and row",
        "what the source lines' edges add: delays, the cells' lag, the column's capacitance",
        "devices apart from their transistors: noise and drift, once switched on, act on the pair in series",
    ]
    if tile.has_readout:
        left += [
            "clamp voltage against current, offset and lag: the clamp is ideal, at the common mode",
            "the oscillator's curve, start and bias: its mean gain from -100 to 100 uA is kept, and truncation towards zero",
        ]
    else:
        left.append("an ADC: the card has no read-out, so quantisation is off")
    return [*left, _ABOUT]
