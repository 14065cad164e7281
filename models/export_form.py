"""What every exporter returns."""

from attrs import field, frozen


@frozen
class Exported:
    """A card in another form: the text of the file, and what of the card is not in it, one text each."""

    text: str
    left_out: tuple[str, ...] = field(converter=tuple)
