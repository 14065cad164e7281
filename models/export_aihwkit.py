"""A card as the nearest configuration of IBM's aihwkit, as a Python file.

The target is ``TorchInferenceRPUConfigIRDropT`` (aihwkit 1.1, ``simulator/tiles/analog_mvm_irdrop_t.py``): pulse-width
inputs in time steps of one LSB, conductance pairs, a Thévenin ladder of each column in every step, and an ADC that
counts charge. Its columns are tied (source lines at 0.4 V ± 0.2 V, fixed in its code), and its cells are ohmic.
"""

from __future__ import annotations

import math

import numpy as np

from aimcard.models.card import Card
from aimcard.models.errors import InputError
from aimcard.models.export_form import Exported
from aimcard.models.lut import lookup
from aimcard.models.tile import TileModel

#: aihwkit's own constants: the drive beside the common mode [V], and the current at which its ADC's frequency is given [A].
DRIVE_V = 0.2
ADC_AT_A = 100e-6
_MODES = {"conventional": "ONE_PASS", "split": "SPLIT_MODE", "bit-wise": "BIT_WISE"}

_TEMPLATE = '''\
"""aihwkit configuration nearest to the aimcard card {hash}.

{what}. Needs aihwkit 1.1 or newer.
"""

from aihwkit.inference import PCMLikeNoiseModel, SinglePairConductanceConverter
from aihwkit.simulator.configs import TorchInferenceRPUConfigIRDropT
from aihwkit.simulator.parameters.enums import AnalogMVType, BoundManagementType, NoiseManagementType


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
        g_converter=SinglePairConductanceConverter(g_max={g_max!r}, g_min={g_min!r}),  # uS
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
    model = TileModel(card)
    rows, code_max = int(meta["rows"]), model.code_max
    r_bit, r_return = model.values["r_bit_ohm"], model.values["r_return_ohm"]
    g = card.domain["conductance_s"]
    what = ", ".join(str(meta[key]) for key in ("topology", "mode", "technology", "corner"))
    text = _TEMPLATE.format(
        hash=card.content_hash[:12], rows=rows, code_max=code_max, steps=2 * code_max,
        what=f"{what}, {meta['temperature_c']:g} degC",
        mode=_MODES.get(str(meta["mode"]), "ONE_PASS"), rs=float(r_bit + r_return), r_bit=r_bit, r_return=r_return,
        segments=_segments(rows, int(meta["segments"])), adc=model.has_readout, frequency=_adc_frequency(model),
        g_max=_micro(g.hi), g_min=_micro(g.lo),
    )  # fmt: skip
    return Exported(text, _left_out(model))


def _micro(value: float) -> float:
    return float(f"{value * 1e6:.12g}")


def _segments(rows: int, segments: int) -> int:
    """The largest number of segments up to the card's that divides the rows, as aihwkit wants it."""
    return max(n for n in range(1, min(rows, segments) + 1) if rows % n == 0)


def _adc_frequency(model: TileModel) -> float:
    """Count rate at 100 µA less that of the idle line [GHz], times the LSB in ns, in which aihwkit counts its steps."""
    if not model.has_readout:
        return 6.24
    x, rate = model.tables["adc"]
    idle, at = lookup(x, rate, x.new_tensor([0.0, ADC_AT_A])).tolist()
    return float(np.float64(f"{(at - idle) * 1e-9 * model.t_lsb_s * 1e9:.9g}"))


def _left_out(model: TileModel) -> list[str]:
    topology, mode = str(model.card.meta["topology"]), str(model.card.meta["mode"])
    left = []
    if topology != "tied":
        left.append(f"the {topology} column: aihwkit's are tied, its IR-drop does not depend on which other cells are on")
    if mode not in _MODES:
        left.append(f"the PWM mode {mode}: conventional pulses (ONE_PASS) stand for it")
    left += [
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
    return [*left, "standard errors, bounds, correlations, validity domain, validation figures, provenance"]
