"""Every error that aimcard raises on purpose. Each message is one line: what was expected, what came, what to do."""


class AimcardError(Exception):
    """Base of all; the command line prints its message and exits with status 2."""


class InputError(AimcardError, ValueError):
    """An argument (shape, range, sign, NaN, unknown name) is not what the function takes."""


class CardError(AimcardError):
    """A model card cannot be read or written; the message names the file and the field."""


class ReferenceSetError(AimcardError):
    """A reference set cannot be read or written; the message names the file and the field."""


class TechnologyError(AimcardError):
    """An unknown technology or corner, or its PDK package is not installed."""


class SimulatorMissingError(AimcardError):
    """ngspice is not on this machine."""


class SimulationError(AimcardError):
    """A deck failed, hung or did not converge; the message names the kept deck and quotes ngspice."""


class FitError(AimcardError):
    """A fit did not converge or cannot be identified from the data given."""


class OutsideDomainWarning(UserWarning):
    """A card is used outside the domain that it was calibrated and validated on."""
