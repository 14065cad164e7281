"""The levels that a tile is read at. They are choices of the circuit, the same in every technology so far."""

#: Voltage over a cell that is read [V]: that of published phase-change tiles lies between 0.2 and 0.3 V.
V_READ_V = 0.2
#: Common mode of a tied column [V], from which its source lines depart by ``V_READ_V`` to either side.
V_COMMON_V = 0.4
