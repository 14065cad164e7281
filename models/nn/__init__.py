"""Analog layers for torch models: convert a network, choose what goes wrong, calibrate, train, and convert it back."""

from aimcard.models.nn.attention import AnalogMultiheadAttention
from aimcard.models.nn.calibration import calibrate_affine, calibrate_inputs, clear_affine
from aimcard.models.nn.calibration_state import calibration_state, load_calibration
from aimcard.models.nn.convert import convert_to_analog, convert_to_digital, set_non_idealities
from aimcard.models.nn.crossbar import Plan
from aimcard.models.nn.gated import GatedHardware
from aimcard.models.nn.hardware import Hardware
from aimcard.models.nn.layer import AnalogConv1d, AnalogConv2d, AnalogLayer, AnalogLinear
from aimcard.models.nn.options import Mapping, NonIdealities
from aimcard.models.nn.show import mapping_table, show
from aimcard.models.nn.tied import TiedHardware
from aimcard.models.nn.training import train_mode

__all__ = [
    "AnalogConv1d",
    "AnalogConv2d",
    "AnalogLayer",
    "AnalogLinear",
    "AnalogMultiheadAttention",
    "GatedHardware",
    "Hardware",
    "Mapping",
    "NonIdealities",
    "Plan",
    "TiedHardware",
    "calibrate_affine",
    "calibrate_inputs",
    "calibration_state",
    "clear_affine",
    "convert_to_analog",
    "convert_to_digital",
    "load_calibration",
    "mapping_table",
    "set_non_idealities",
    "show",
    "train_mode",
]
