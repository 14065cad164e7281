"""The equations of a tile, the model card that holds what was fitted, and what runs on it. Needs no SPICE."""
