"""A tile from a card that lacks something: what is missing is named."""

import attrs
import pytest

from aimcard.models.errors import CardError, InputError
from aimcard.models.pulse import EDGE_TABLES
from aimcard.models.tile import TileModel
from made_line import draw


class TestIncompleteCard:
    @pytest.mark.parametrize("name", ["c_bit_f", "r_on_ohm", "dw_cap_um", "clamp_on_0_s", "phase_start"])
    def test_parameter(self, card_of, tmp_path, name):
        card = card_of()
        left = [p for p in card.parameters if p.name != name]
        path = tmp_path / "cut.card.h5"
        attrs.evolve(card, parameters=left).write(path)
        with pytest.raises(CardError, match=rf"cut\.card\.h5: parameters/{name}: missing"):
            TileModel.read(path)

    @pytest.mark.parametrize("name", [*EDGE_TABLES, "clamp", "mirror", "adc"])
    def test_table(self, card_of, tmp_path, name):
        card = card_of()
        path = tmp_path / "cut.card.h5"
        attrs.evolve(card, tables=[x for x in card.tables if x.name != name]).write(path)
        with pytest.raises(CardError, match=rf"cut\.card\.h5: tables/{name}: missing"):
            TileModel.read(path)

    @pytest.mark.parametrize("name", ["guard_slots", "w_ref_um", "w_select_um", "apparent_weight"])
    def test_meta(self, card_of, name):
        card = card_of()
        meta = {key: value for key, value in card.meta.items() if key != name}
        with pytest.raises(CardError, match=f"card: meta@{name}: missing"):
            TileModel(attrs.evolve(card, meta=meta))

    def test_unknown_apparent_weight(self, card_of):
        card = card_of()
        with pytest.raises(CardError, match=r"meta@apparent_weight: expected one of quadratic.*got 'linear'"):
            TileModel(attrs.evolve(card, meta=card.meta | {"apparent_weight": "linear"}))

    def test_without_a_read_out_its_parameters_are_not_needed(self, card_of):
        card = card_of(readout=False)
        left = [p for p in card.parameters if p.group not in ("read-out", "adc")]
        model = TileModel(attrs.evolve(card, parameters=left))
        g, x = draw()
        assert model.respond(g[None], x[None], clamp="ideal").mirror_a is None
        with pytest.raises(InputError, match="calibrated without a read-out"):
            model.respond(g[None], x[None])
