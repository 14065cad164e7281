"""The PCM element's statistics: programming error, drift, read noise within one product. Torch, SI units, seeded.

Sources: [K] is IBM's aihwkit (PyPI ``aihwkit``: its PCM-like noise model and the read noise of its time-dependent IR-drop
tile); [J] is Joshi et al., Nat. Commun. 11, 2473 (2020). Conductances [S], times [s]; every drawing function takes a generator.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from aimcard.models.checks import check_positive
from aimcard.models.errors import InputError
from aimcard.models.flicker import flicker_covariance

Scalar = Tensor | float
#: Least and largest conductance of a phase-change cell, as published tiles use them [S].
G_MIN_S, G_MAX_S = 0.1e-6, 25e-6
#: Time from which drift counts [s], [K].
DRIFT_T0_S = 20.0
#: Integration times for which the read-noise polynomial was measured [s]; it turns up beyond them.
READ_NOISE_RANGE_S = (1e-9, 1e-6)
#: a and b of sigma_G = a·|G| + b, polynomials of log10(t/ns), highest power first; b in siemens [K].
_SLOPE = (0.00021926, -0.00187352, 0.00655714, -0.0146159, 0.02578764)
_FLOOR_S = (0.00111906e-6, -0.00908577e-6, 0.0307015e-6, -0.0677079e-6, 0.117763e-6)


def normal_like(values: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers of the shape and type of ``values``, from ``generator`` (on its device; None: torch's own)."""
    device = values.device if generator is None else generator.device
    return torch.randn(values.shape, generator=generator, dtype=values.dtype, device=device).to(values.device)


def programming_sigma(target_s: Tensor, g_max_s: float = G_MAX_S, form: str = "aihwkit") -> Tensor:
    """Standard deviation of a programmed conductance about its target [S], any shape.

    aihwkit: (0.26348 + 1.9650 r − 1.1731 r²) µS · g_max/25 µS, r = target/g_max [K]. joshi: −0.00178767 G² + 0.07585724 G +
    0.28638599, all in µS [J], which knows no g_max.
    """
    if form == "aihwkit":
        r = target_s / check_positive("g_max_s", g_max_s)
        sigma = (0.26348 + 1.9650 * r - 1.1731 * r * r) * (1e-6 * g_max_s / 25e-6)
    elif form == "joshi":
        g = target_s * 1e6
        sigma = (-0.00178767 * g * g + 0.07585724 * g + 0.28638599) * 1e-6
    else:
        raise InputError(f"form: expected one of aihwkit, joshi; got {form!r}")
    return torch.clamp(sigma, min=0.0)


def programmed(
    target_s: Tensor, g_max_s: float = G_MAX_S, *, generator: torch.Generator | None = None, form: str = "aihwkit"
) -> Tensor:
    """Conductances after programming [S]: the target plus a normal error, never below zero."""
    sigma = programming_sigma(target_s, g_max_s, form)
    return torch.clamp(target_s + sigma * normal_like(target_s, generator), min=0.0)


def drift_exponent(
    target_s: Tensor, g_max_s: float = G_MAX_S, *, generator: torch.Generator | None = None, spread: bool = True
) -> Tensor:
    """Drift exponents of devices with these targets [K], any shape; their means without ``spread``.

    mean clip(−0.0155 ln r + 0.0244, 0.049, 0.1), sigma clip(−0.0125 ln r − 0.0059, 0.008, 0.045), r = target/g_max.
    """
    log_r = torch.log(torch.clamp(target_s / check_positive("g_max_s", g_max_s), min=1e-9))
    mean = torch.clamp(-0.0155 * log_r + 0.0244, 0.049, 0.1)
    if not spread:
        return mean
    sigma = torch.clamp(-0.0125 * log_r - 0.0059, 0.008, 0.045)
    return mean + sigma * normal_like(target_s, generator)


def drifted(conductance_s: Tensor, exponent: Scalar, time_s: float) -> Tensor:
    """Conductance ``time_s`` after programming [S]: G·((t + t0)/t0)^−ν, t0 = 20 s [K]."""
    t = check_positive("time_s", time_s, zero=True)
    return conductance_s * torch.exp(-torch.as_tensor(exponent) * math.log1p(t / DRIFT_T0_S))


def read_noise_sigma(conductance_s: Tensor, time_s: Tensor | float) -> Tensor:
    """Standard deviation [S] of a device's mean conductance over a pulse of ``time_s``; arguments broadcast.

    a(t)·|G| + b(t) with X = log10(t/ns), from measurements of 1 ns to 1 µs [K]. A time of exactly zero (a row that is off)
    gives zero. Raises InputError for any other time outside that range: the polynomial turns up there. [K] quotes it for the
    difference of a pair; here it is taken for each element that conducts, so a pair with both elements on has b twice.
    """
    t = torch.as_tensor(time_s, dtype=conductance_s.dtype, device=conductance_s.device)
    low, high = READ_NOISE_RANGE_S
    slack = 1e-6 if conductance_s.dtype == torch.float64 else 1e-3
    off = t == 0
    wrong = ~off & ((t < low * (1 - slack)) | (t > high * (1 + slack)) | torch.isnan(t))
    if bool(wrong.any()):
        raise InputError(
            f"time_s: the PCM's read noise is known from {low:g} to {high:g} s (or 0 for a row that is off); "
            f"got {float(t[wrong].flatten()[0]):.4g}; use another LSB time or mode"
        )
    x = torch.log10(torch.where(off, torch.full_like(t, low), t) / 1e-9)
    sigma = _polynomial(_SLOPE, x) * conductance_s.abs() + _polynomial(_FLOOR_S, x)
    return torch.where(off, torch.zeros_like(sigma), sigma)


#: The 1/f part of the read noise's variance, over ``read_noise_scale`` squared, and the lowest frequency that a measurement
#: of it saw: with 3.41e-4/(t/ns) of white noise, 4.36e-5·ln(1.7 µs/t) is a(t)² within 2 % from 1 to 100 ns. What is slower is in
#: ``accumulated_noise_sigma``.
READ_FLICKER = 4.36e-5
READ_LOWEST_HZ = math.exp(1.5 - float(np.euler_gamma)) / (2 * math.pi * 1.7e-6)
#: b over a of the polynomials at 10 ns [S]; within 2 % of it from 1 to 127 ns.
_FLOOR_OVER_SLOPE_S = 4.53e-6


def read_noise_scale(conductance_s: Tensor) -> Tensor:
    """What a(t) multiplies in ``read_noise_sigma`` [S], b being nearly proportional to a: |G| + 4.53 µS."""
    return conductance_s.abs() + _FLOOR_OVER_SLOPE_S


def common_read_noise(begin_s: Tensor, end_s: Tensor, other_begin_s: Tensor, other_end_s: Tensor) -> Tensor:
    """Covariance of a device's mean conductance over two pulses, over ``read_noise_scale`` squared; arguments broadcast.

    The 1/f part alone: white noise is new in every pulse. Never below zero: pulses half a microsecond apart have nothing in
    common that a measurement of [K] would have seen.
    """
    begin, end, other_begin, other_end = (t.double() * 1e9 for t in (begin_s, end_s, other_begin_s, other_end_s))
    common = flicker_covariance(begin, end, other_begin, other_end, READ_LOWEST_HZ * 1e-9).clamp(min=0.0)
    return (READ_FLICKER * common).to(begin_s.dtype)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        value = value * x + c
    return value


def read(conductance_s: Tensor, time_s: Tensor | float, *, generator: torch.Generator | None = None) -> Tensor:
    """Mean conductances as one product sees them [S]: a fresh read-noise sample per element of the broadcast shape.

    Slow, exact twin of `mac_sigma`: vectors × lines × rows samples.
    """
    sigma = read_noise_sigma(conductance_s, time_s)
    return conductance_s + sigma * normal_like(sigma, generator)


def mac_sigma(conductance_s: Tensor, time_s: Tensor, v_read_v: float) -> Tensor:
    """Standard deviation of a line's charge by its PCMs' read noise [C], without drawing a sample per device.

    V·√Σ σ_G(G_i, t_i)²·t_i². conductance_s (lines, rows); time_s (vectors, rows): how long each row's pulse is.
    Returns (vectors, lines). As σ_G = a·G + b, it is three products: a²t²·G², 2abt²·G and b²t².
    """
    time_s = time_s.to(conductance_s.dtype)
    a, b = _slope_and_floor(time_s)
    at, bt = a * time_s, b * time_s
    square = (at * at) @ (conductance_s * conductance_s).mT + (2 * at * bt) @ conductance_s.abs().mT
    return v_read_v * torch.sqrt(square + (bt * bt).sum(-1, keepdim=True))


def _slope_and_floor(time_s: Tensor) -> tuple[Tensor, Tensor]:
    """a and b [S] of sigma_G = a·|G| + b; zero where the time is. Raises as `read_noise_sigma`."""
    floor = read_noise_sigma(torch.zeros_like(time_s), time_s)
    return read_noise_sigma(torch.ones_like(time_s), time_s) - floor, floor


def accumulated_noise_sigma(conductance_s: Tensor, time_s: float, g_max_s: float = G_MAX_S, t_read_s: float = 250e-9) -> Tensor:
    """Standard deviation by 1/f noise accumulated in the time since programming [S], [K].

    σ = G·Q·√ln((t + t_r)/(2 t_r)), Q = min(0.0088/r^0.65, 0.2), r = G/g_max; zero up to t = t_r.
    """
    r = torch.clamp(conductance_s / check_positive("g_max_s", g_max_s), min=1e-9)
    q = torch.clamp(0.0088 * r**-0.65, max=0.2)
    log = math.log(max((check_positive("time_s", time_s, zero=True) + t_read_s) / (2 * t_read_s), 1.0))
    return conductance_s * q * math.sqrt(log)
