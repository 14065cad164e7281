"""The current-controlled oscillator: five current-starved stages, reset in every stage, and its phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aimcard.models.errors import InputError
from aimcard.netlists.readout import ReadoutDesign, add_mirror, add_regulator
from aimcard.netlists.technology import Technology
from aimcard.netlists.waveforms import Waveforms

STAGES = 5
#: Edges of both directions of all stages are counted.
COUNTS_PER_PERIOD = 2 * STAGES
#: Width of the reset's release; it lies around the instant that is called the release.
RELEASE_S = 20e-12


def add_bias(
    circuit: Any, technology: Technology, design: ReadoutDesign, bias: str, supply: str, p: str
) -> None:
    """Add the ring's bias: diode at ``bias``, a branch that copies it, and the PMOS diode at ``<p>biasp``."""
    mos = technology.mosfet
    n: dict[str, Any] = {
        "kind": "nmos",
        "w_um": design.bias_n_w_um,
        "l_um": design.starve_l_um,
        "flavour": design.starve_flavour,
    }
    mos(circuit, f"{p}biasn", bias, bias, "0", "0", **n)
    mos(circuit, f"{p}branch", f"{p}biasp", bias, "0", "0", **n)
    mos(
        circuit, f"{p}biasp", f"{p}biasp", f"{p}biasp", supply, supply, kind="pmos",
        w_um=design.bias_p_w_um, l_um=design.starve_l_um, flavour=design.starve_flavour,
    )  # fmt: skip


def add_oscillator(
    circuit: Any,
    technology: Technology,
    design: ReadoutDesign,
    *,
    bias: str,
    run: str,
    prefix: str = "osc",
) -> tuple[str, ...]:
    """Add the oscillator, fed by a current into ``bias``; returns the five stages' node names.

    While V(``run``) is low every stage is held, odd stages at V_DD, even ones at ground: the first edge after
    ``run`` rises is always the fall of stage 1. The supply is an ideal source of its own, ``v<prefix>dd``.
    """
    p = prefix
    supply = f"{p}vdd"
    mos = technology.mosfet
    circuit.V(f"{p}dd", supply, "0", technology.vdd_v)
    add_bias(circuit, technology, design, bias, supply, p)
    # The inverse of `run` from an ideal source's point of view: a small static inverter.
    size: dict[str, Any] = {"l_um": design.inverter_l_um, "flavour": design.reset_flavour}
    mos(circuit, f"{p}hn", f"{p}hold", run, "0", "0", kind="nmos", w_um=1.0, **size)
    mos(circuit, f"{p}hp", f"{p}hold", run, supply, supply, kind="pmos", w_um=2.0, **size)
    nodes = stage_nodes(p)
    inverter: dict[str, Any] = {"l_um": design.inverter_l_um, "flavour": design.inverter_flavour}
    starve: dict[str, Any] = {"l_um": design.starve_l_um, "flavour": design.starve_flavour}
    for k, out in enumerate(nodes):
        gate = nodes[k - 1]
        n, h = f"{p}n{k + 1}", f"{p}p{k + 1}"
        mos(circuit, f"{p}sn{k}", n, bias, "0", "0", kind="nmos", w_um=design.starve_n_w_um, **starve)
        mos(
            circuit,
            f"{p}sp{k}",
            h,
            f"{p}biasp",
            supply,
            supply,
            kind="pmos",
            w_um=design.starve_p_w_um,
            **starve,
        )
        mos(circuit, f"{p}in{k}", out, gate, n, "0", kind="nmos", w_um=design.inverter_n_w_um, **inverter)
        mos(circuit, f"{p}ip{k}", out, gate, h, supply, kind="pmos", w_um=design.inverter_p_w_um, **inverter)
        # Both reset transistors on every stage, one of them tied off: equal stages, equal edge intervals.
        up, down = (run, "0") if k % 2 == 0 else (supply, f"{p}hold")
        mos(circuit, f"{p}ru{k}", out, up, supply, supply, kind="pmos", w_um=design.reset_w_um, **size)
        mos(circuit, f"{p}rd{k}", out, down, "0", "0", kind="nmos", w_um=design.reset_w_um, **size)
        circuit.C(f"{p}{k}", out, "0", design.stage_c_f)
    return nodes


def add_oscillator_input_load(
    circuit: Any, technology: Technology, design: ReadoutDesign, *, bias: str, prefix: str = "osc"
) -> None:
    """Add what the oscillator's bias node shows to the mirror: bias transistors and the starving gates.

    The starving transistors' drains rest at ground for most of a period, so here they are tied to it.
    """
    p = prefix
    supply = f"{p}vdd"
    circuit.V(f"{p}dd", supply, "0", technology.vdd_v)
    add_bias(circuit, technology, design, bias, supply, p)
    technology.mosfet(
        circuit, f"{p}sn", "0", bias, "0", "0", kind="nmos", m=STAGES,
        w_um=design.starve_n_w_um, l_um=design.starve_l_um, flavour=design.starve_flavour,
    )  # fmt: skip


def add_readout(
    circuit: Any,
    technology: Technology,
    design: ReadoutDesign,
    *,
    bit_line: str,
    run: str | None = None,
    prefix: str = "",
) -> None:
    """Add one line's whole read-out between ``bit_line`` and the nodes of `add_supplies`.

    With ``run`` (a node) the ring itself loads the mirror, without it `add_oscillator_input_load` does.
    The oscillator's prefix is ``<prefix>osc``.
    """
    mirror, bias, osc = f"{prefix}mirrorgate", f"{prefix}oscbias", f"{prefix}osc"
    add_regulator(
        circuit, technology, design, bit_line=bit_line, mirror_gate=mirror, reference="ref", prefix=prefix
    )
    add_mirror(circuit, technology, design, mirror_gate=mirror, out=bias, prefix=prefix)
    if run is None:
        add_oscillator_input_load(circuit, technology, design, bias=bias, prefix=osc)
    else:
        add_oscillator(circuit, technology, design, bias=bias, run=run, prefix=osc)


def add_run(
    circuit: Any, technology: Technology, release_s: float, holds: Sequence[tuple[float, float]] = ()
) -> None:
    """Node run: the ring is held until ``release_s``, then free, but held again in each (from, to) of ``holds`` [s]."""
    half, vdd = RELEASE_S / 2, f"{technology.vdd_v:g}"
    points = [f"{release_s - half:.9g} 0 {release_s + half:.9g} {vdd}"]
    for a, b in holds:
        points.append(f"{a - half:.9g} {vdd} {a + half:.9g} 0 {b - half:.9g} 0 {b + half:.9g} {vdd}")
    circuit.V("run", "run", "0", f"PWL({' '.join(points)})")


def stage_nodes(prefix: str = "osc") -> tuple[str, ...]:
    """Node names of the five stages of the oscillator with this prefix."""
    return tuple(f"{prefix}{k}" for k in range(1, STAGES + 1))


def edge_times_s(waves: Waveforms, level_v: float, prefix: str = "osc") -> np.ndarray:
    """Sorted times [s] at which any stage passes ``level_v`` (V_DD/2), either way, shape (edges,)."""
    return np.sort(np.concatenate([waves.crossings(f"v({n})", level_v, "both") for n in stage_nodes(prefix)]))


def phase_at(
    waves: Waveforms,
    times_s: Sequence[float] | np.ndarray,
    *,
    released_s: float,
    level_v: float,
    prefix: str = "osc",
) -> np.ndarray:
    """The oscillator's phase [counts] at ``times_s``, same shape: edges so far plus the fraction to the next.

    Its floor is a counter's reading. Zero up to ``released_s``, where the reset lets go; from there to the
    first edge it rises linearly, as between any two edges. Raises InputError for a time after the last
    simulated edge.
    """
    times = np.asarray(times_s, dtype=float)
    edges = edge_times_s(waves, level_v, prefix)
    edges = np.concatenate(([released_s], edges[edges > released_s]))
    if times.size and times.max() > edges[-1]:
        raise InputError(
            f"times_s: expected times up to the last simulated edge, {edges[-1]:.6g} s; "
            f"got {times.max():.6g} s; simulate a little longer"
        )
    return np.interp(times, edges, np.arange(edges.size, dtype=float))


def phases_between(
    waves: Waveforms,
    gates_s: Sequence[tuple[float, float]],
    *,
    level_v: float,
    idle_rate_hz: float,
    prefix: str = "osc",
) -> np.ndarray:
    """The phase [counts] gained between each gate's opening and closing, (gates,), by a ring that every gate releases.

    The floor is what the counter shows. Where no edge follows the last one of a gate, because the ring is held or the
    run ends, the fraction grows with ``idle_rate_hz``: a gate closes on an idle line.
    """
    edges, found = edge_times_s(waves, level_v, prefix), []
    opens = [a for a, _ in gates_s]
    for k, (a, b) in enumerate(gates_s):
        inside = edges[(edges > a) & (edges <= b)]
        last = inside[-1] if inside.size else a
        beyond = edges[edges > b]
        # An edge after the next release is another phase's, and one in a hold the reset's.
        free_until = np.inf if k + 1 == len(opens) else b
        if beyond.size and beyond[0] < free_until:
            fraction = (b - last) / (beyond[0] - last)
        else:
            fraction = min((b - last) * idle_rate_hz, 1 - 1e-9)
        found.append(inside.size + fraction)
    return np.array(found)
