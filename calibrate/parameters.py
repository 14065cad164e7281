"""Every fitted number: where its fit starts, its bounds, unit, group and meaning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """``scale`` is the size of one natural unit: the optimiser sees value/scale, a number near one."""

    name: str
    start: float
    lo: float
    hi: float
    scale: float
    unit: str
    group: str
    description: str


def _table(rows: list[tuple[str, float, float, float, float, str, str, str]]) -> dict[str, Spec]:
    return {row[0]: Spec(*row) for row in rows}


def _responses(block: str, what: str) -> list[tuple[str, float, float, float, float, str, str, str]]:
    after = ("in the slot of a step", "one slot later", "two slots later")
    rows: list[tuple[str, float, float, float, float, str, str, str]] = []
    for kind, when in (("step", "small step"), ("on", "turn-on")):
        for k, slot in enumerate(after):
            text = f"{what}, {when}: charge per ampere {slot}"
            rows.append((f"{block}_{kind}_{k}_s", 0, -1e-8, 1e-8, 1e-11, "s", "read-out", text))
            rows.append(
                (f"{block}_{kind}_{k}_idle_s", 0, -1e-8, 1e-8, 1e-11, "s", "read-out", "what small current adds to it")
            )
    for k, slot in enumerate(after):
        text = f"{what}, small step: what very small current adds {slot}"
        rows.append((f"{block}_step_{k}_low_s", 0, -1e-8, 1e-8, 1e-11, "s", "read-out", text))
    rows.append(
        (
            f"{block}_half_a",
            2e-5,
            1e-7,
            1e-1,
            1e-5,
            "A",
            "read-out",
            f"{what}, small step: line current that halves the addition",
        )
    )
    rows.append((f"{block}_on_half_a", 5e-5, 1e-7, 1e-1, 1e-5, "A", "read-out", f"{what}, turn-on: the same"))
    return rows


SPECS = _table(
    [
        ("r_on_ohm", 600.0, 10, 1e5, 100, "Ohm", "cell", "triode resistance of the select transistor, reference width"),
        ("dw_um", 0.004, -0.2, 0.08, 0.01, "um", "cell", "drawn minus effective width in R_on"),
        ("k_source_per_v", 0.8, -2, 10, 1, "1/V", "cell", "R_on goes with 1/(1 - k V_return)"),
        ("k_drain_per_v", 1.0, -5, 20, 1, "1/V", "cell", "relative rise of R_on per volt across the transistor"),
        ("i_leak_a", 1e-9, 0, 1e-6, 1e-9, "A", "leakage", "current of an idle cell at the read voltage, reference width"),
        ("dw_leak_um", 0.01, -0.2, 0.08, 0.01, "um", "leakage", "drawn minus effective width in the leakage"),
        ("v_leak_source_v", 0.027, 0.005, 0.5, 0.01, "V", "leakage", "return-line voltage that divides the leakage by e"),
        ("v_leak_drain_v", 0.4, 0.02, 50, 0.1, "V", "leakage", "bit-line voltage that multiplies the leakage by e"),
        ("i_gate_a", 1e-9, 0, 1e-6, 1e-9, "A", "leakage", "gate current of a conducting cell into the return line"),
        ("v_gate_source_v", 0.16, 0.01, 50, 0.1, "V", "leakage", "return-line voltage that divides the gate current by e"),
        ("t_rise_s", 0, -1e-9, 1e-9, 1e-11, "s", "pulse", "start of conduction after the word line's V_DD/2"),
        ("k_rise", 0, -3, 3, 0.1, "1", "pulse", "the same per second of 10-90 % rise time"),
        ("t_fall_s", 1e-11, -1e-9, 1e-9, 1e-11, "s", "pulse", "end of conduction after the word line's V_DD/2"),
        ("k_fall", 0, -3, 3, 0.1, "1", "pulse", "the same per second of 10-90 % fall time"),
        ("k_gate", 1, -10, 10, 1, "1", "pulse", "how far the return line's voltage shifts both along the edge"),
        ("t_fall_per_s", 0, -1e-3, 1e-3, 1e-7, "s/S", "pulse", "later end of conduction per siemens of PCM"),
        ("q_rise_c", 0, -1e-14, 1e-14, 1e-18, "C", "pulse", "charge of a rising edge"),
        ("q_fall_c", 2.3e-16, -1e-14, 1e-14, 1e-16, "C", "pulse", "recharge of the internal node after a pulse"),
        ("i_fall_a", 0, -1e-3, 1e-3, 1e-7, "A", "pulse", "the same per second of 10-90 % fall time"),
        ("c_fall_bit_f", 8e-16, -1e-13, 1e-13, 1e-16, "F", "pulse", "the recharge's change per volt on the bit line"),
        ("c_fall_return_f", -5e-16, -1e-13, 1e-13, 1e-16, "F", "pulse", "the recharge's change per volt on the return line"),
        ("c_node_f", 8e-16, 1e-17, 1e-13, 1e-16, "F", "pulse", "capacitance of the internal node: the recharge takes C/G"),
        ("i_recharge_a", 3e-9, -1e-6, 1e-6, 1e-9, "A", "pulse", "current that the low internal node takes from the return line"),
        ("k_recharge_per_v", 20.0, -50, 200, 1, "1/V", "pulse", "this current goes with exp(-k V_return)"),
        ("dw_node_um", 0.0, -1.0, 0.08, 0.01, "um", "pulse", "drawn minus effective width of the recharge"),
        ("dw_fall_um", 0.0, -1.0, 0.2, 0.01, "um", "pulse", "drawn minus effective width of the recharge's fall-time part"),
        ("dw_recharge_um", 0.0, -1.0, 0.2, 0.01, "um", "pulse", "drawn minus effective width of the low node's current"),
        ("dw_late_um", 0.0, -1.0, 0.2, 0.01, "um", "pulse", "the end of conduction is later by 1/(W - dw)"),
        ("dw_cap_um", 0.0, -1.0, 0.08, 0.01, "um", "pulse", "drawn minus effective width of the internal node's capacitance"),
        ("c_rise_push_f", -3e-15, -1e-12, 1e-12, 1e-15, "F", "line", "line charge of a rising edge per volt on the return line"),
        ("g_rise_push_s", 0, -1, 1, 1e-5, "S", "line", "the same per second of 10-90 % rise time"),
        ("c_fall_push_f", 1e-15, -1e-12, 1e-12, 1e-15, "F", "line", "line charge of a falling edge per volt on the return line"),
        ("g_fall_push_s", 0, -1, 1, 1e-5, "S", "line", "the same per second of 10-90 % fall time"),
        ("c_small_push_f", 1e-15, -1e-12, 1e-12, 1e-15, "F", "line", "what a cell of small conductance adds to the latter"),
        ("g_small_s", 3e-7, 1e-8, 1e-4, 1e-7, "S", "line", "conductance that halves this addition"),
        ("n_rise_push", 0, -2, 1, 0.1, "1", "line", "rising gate's push goes with (r_return/0.15 Ohm)^-n"),
        ("n_fall_push", 0, -2, 1, 0.1, "1", "line", "falling gate's pull goes with (r_return/0.15 Ohm)^-n"),
        ("c_idle_f", 5e-16, 0, 1e-13, 1e-16, "F", "line", "capacitance by which an idle cell loads the bit line"),
        ("dw_push_um", 0.0, -1.0, 0.2, 0.1, "um", "line", "drawn minus effective width of the rising gate's push"),
        ("dw_pull_um", 0.0, -2.0, 0.2, 0.1, "um", "line", "the same of the falling gate's pull"),
        ("dw_small_um", 0.0, -2.0, 0.26, 0.1, "um", "line", "the same of what small cells add"),
        ("r_bit_ohm", 0.15, 0, 100, 0.01, "Ohm", "wire", "bit-line wire per cell"),
        ("c_bit_f", 3e-16, 0, 1e-13, 1e-16, "F", "wire", "bit-line capacitance per cell"),
        *_responses("clamp", "clamp"),
        *_responses("mirror", "mirror's lag"),
        ("phase_start", 0, -50, 50, 1, "1", "adc", "counts gained by the oscillator's start from reset"),
        ("t_wait_s", 2e-10, -5e-9, 5e-9, 1e-10, "s", "adc", "time before the first slot's current reaches the oscillator"),
        ("q_pulse_c", 1e-12, 0, 1e-9, 1e-12, "C", "energy", "charge of one word-line pulse from V_DD, whole word line"),
        ("i_pulse_a", 1e-6, -1e-3, 1e-3, 1e-6, "A", "energy", "what its driver draws more while the pulse lasts"),
        ("i_driver_a", 1e-6, 0, 1e-2, 1e-6, "A", "energy", "what its driver draws at rest"),
        ("i_bias_a", 1e-4, 0, 1, 1e-4, "A", "energy", "OTA and current references of one line"),
        ("i_bleed_a", 1e-5, 0, 1, 1e-5, "A", "energy", "regulator's current at no line current"),
    ]
)  # fmt: skip
