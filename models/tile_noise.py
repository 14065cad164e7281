"""Noise of what a tile answers, in any PWM mode: its lines' slot currents through ``models/noise.py``."""

from __future__ import annotations

import numpy as np
import torch

from aimcard.models.adc import PHASE_RULES
from aimcard.models.checks import check_choice, check_positive
from aimcard.models.counting import Counting
from aimcard.models.errors import InputError
from aimcard.models.modes import Mode, get_mode
from aimcard.models.noise import CLOCK_JITTER_S, LOWEST_HZ, CountNoise, Devices, NoiseParameters, count_noise
from aimcard.models.read_gain import ReadGain, gated_read_gain, tied_read_gain
from aimcard.models.tied_tile import TiedTile
from aimcard.models.topology import Tile

#: Of one over a product's duration: above this share the closed forms of 1/f noise, for slow noise, err by more than 1 %.
SLOW = 0.03


def tile_noise(
    tile: Tile, conductance_s: np.ndarray, codes: np.ndarray, conductance_minus_s: np.ndarray | None = None, *,
    mode: str | Mode | None = None, phase_rule: str | None = None, jitter_s: float = CLOCK_JITTER_S,
    lowest_hz: float = LOWEST_HZ, pcm: bool = True,
) -> CountNoise:  # fmt: skip
    """Every source's σ of the weighted counts of lines (lines, rows) [S] under codes (vectors, rows).

    A gated line takes codes of either sign in two sign phases, one after the other, of which the second is subtracted; the line's
    slow noise is nearly the same in both. conductance_minus_s: of a tied tile. mode, phase_rule: as for ``respond``, the card's
    own by default. pcm False leaves the PCM's read noise out. Raises CardError for a card without noise tables; InputError as
    ``respond``, and for a jitter below zero or a lowest frequency that is not slow beside the product.
    """
    p = NoiseParameters.of(tile.card)
    pwm = tile.mode if mode is None else get_mode(mode, tile.code_max)
    rule = check_choice("phase_rule", tile.phase_rule if phase_rule is None else phase_rule, PHASE_RULES)
    check_positive("jitter", jitter_s, zero=True)
    guard = tile.guard_slots
    counting = Counting.of(pwm, guard, tile.t_lsb_s, rule, tile.hold_s)
    most_hz = SLOW / (counting.windows[-1][1] * tile.t_lsb_s)
    if check_positive("lowest frequency", lowest_hz) > most_hz:
        raise InputError(
            f"lowest frequency: expected noise that is slow beside the product, {most_hz:.3g} Hz at most in mode {pwm.name}; "
            f"got {lowest_hz:g} Hz"
        )
    if isinstance(tile, TiedTile):
        if conductance_minus_s is None:
            raise InputError("conductance_minus_s: a tied column has cells of both signs; got none; give them")
        g, minus = torch.as_tensor(conductance_s), torch.as_tensor(conductance_minus_s)
        answer = tile.respond(conductance_s, codes, conductance_minus_s=conductance_minus_s, clamp="ota", mode=pwm)
        current, column = torch.from_numpy(answer.current_a), tile.effective(g, minus)
        devices = None
        if pcm:
            twice = [(torch.cat([begin, begin], -1), torch.cat([end, end], -1)) for begin, end in _pulses(tile, pwm, codes)]
            gain = tied_read_gain(tile, g, minus, column, current)
            devices = Devices(torch.cat([g, minus], -1), twice, gain, tile.v_read_v)
        return count_noise(p, current, counting, jitter_s=jitter_s, lowest_hz=lowest_hz, column_s=column.y_s, devices=devices)
    signs = (np.maximum(codes, 0), np.maximum(-codes, 0)) if (codes < 0).any() else (codes,)
    currents = [torch.from_numpy(tile.respond(conductance_s, x, mode=pwm).current_a) for x in signs]
    devices = None
    if pcm:
        gains = [gated_read_gain(tile, conductance_s, x, i, pwm) for x, i in zip(signs, currents, strict=True)]
        gain = ReadGain(gains[0].device, torch.cat([each.line for each in gains], -1))
        slots = counting.windows[-1][1]
        pulses = [(a + k * slots, b + k * slots) for k, x in enumerate(signs) for a, b in _pulses(tile, pwm, x)]
        devices = Devices(torch.as_tensor(conductance_s), pulses, gain, tile.v_read_v)
    both = counting.in_signs(len(signs))
    return count_noise(p, torch.cat(currents, -1), both, jitter_s=jitter_s, lowest_hz=lowest_hz, devices=devices)


def _pulses(tile: Tile, mode: Mode, codes: np.ndarray) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Start and stop of each row in each phase, slots of the window, (vectors, rows) each."""
    return mode.window_pulses(torch.as_tensor(codes), torch.arange(codes.shape[-1]), tile.guard_slots)
