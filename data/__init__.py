"""The reference-set form, and the cards and recorded sets that ship with aimcard."""
