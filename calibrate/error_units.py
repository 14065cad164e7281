"""How large an error of each kind of record counts as one in the fits: what lets them stand in one least-squares sum.

Where a unit follows from an aim, or from what a line adds up, the reason is with it; the others were chosen by hand, and say so.
The figures are those of the shipped FreePDK45 sets.
"""

#: Charge of a line in a window, as a share of it. The aim of 1 − R² = 1e-6 allows 1e-3 of σ, and under Gaussian and uniform
#: inputs σ is 2 % of the mean charge or more.
CHARGE_ERROR = 2e-5
#: Mean current in a slot, as a share of the line's rms current. Chosen by hand, five to ten times tighter than the aim of
#: 1 − R² = 1e-5, which allows 3e-3 of σ: within a line σ is a third to three quarters of the rms current.
SLOT_ERROR = 2e-4
#: Mean current of a line while nothing switches, as a share: wire and cells alone act there, and ngspice errs by a few ppm.
QUIET_ERROR = 2e-6
#: Phase of the ring [counts]. Chosen by hand: a fifth of the aim of 0.1 counts rms.
PHASE_ERROR_COUNT = 0.02
#: Current of a conducting cell, as a share. Chosen by hand: half of what a line's charge may err by.
CELL_ERROR = 1e-5
#: Leakage of an idle cell, as a share of the largest. All of a line's is below 1 % of its charge, so this is 1e-4 of it at most.
LEAK_ERROR = 1e-2
#: Gate current of a conducting cell, as a share. Chosen by hand, as LEAK_ERROR.
GATE_ERROR = 1e-2
#: Charge of a single pulse in one slot [C]. Chosen by hand.
PULSE_SLOT_ERROR_C = 1e-18
#: Charge of a single pulse in all its slots, in units of the former: 256 of 512 cells that err alike by it make 0.13 fC,
#: CHARGE_ERROR of a line's 6 pC.
PULSE_SUM_ERROR = 0.5
#: Gain of a source line, which scales every cell's current.
GAIN_ERROR = CELL_ERROR
#: Supply currents and charges, as a share. Chosen by hand: only the energy depends on them, and it is quoted to two digits.
SUPPLY_ERROR = 1e-2
