"""Read-out of a tied column."""
def add_tied_readout(*a, **k): raise NotImplementedError
