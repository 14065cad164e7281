"""Attention on tiles: torch's own, and that of Hugging Face's blocks (tiny random ones, made offline)."""

import pytest
import torch
from torch import nn

from aimcard.models.nn import Hardware, NonIdealities, convert_to_analog, convert_to_digital, mapping_table
from aimcard.models.nn.crossbar import DynamicCrossbar

OFF = NonIdealities.none()


@pytest.fixture(scope="module")
def hardware(card_of) -> Hardware:
    return Hardware(card_of())


def close(out: torch.Tensor, truth: torch.Tensor) -> bool:
    limit = 1e-12 if truth.dtype == torch.float64 else 2e-6
    return float((out - truth).detach().abs().max() / truth.detach().abs().max()) < limit


ATTENTIONS = [
    {},
    {"batch_first": True, "bias": False},
    {"add_bias_kv": True, "add_zero_attn": True},
    {"kdim": 5, "vdim": 3},
]


@pytest.mark.parametrize("options", ATTENTIONS)
@pytest.mark.parametrize("weights", [{"need_weights": False}, {"average_attn_weights": False}, {}])
def test_multihead_attention(hardware, options, weights):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, dtype=torch.float64, **options)
    analog = convert_to_analog(layer, hardware, non_idealities=OFF)
    assert list(analog.state_dict()) == list(layer.state_dict())
    q, k, v = (torch.randn(n, 2, d, dtype=torch.float64) for n, d in ((3, 8), (4, layer.kdim), (4, layer.vdim)))
    if layer.batch_first:
        q, k, v = (t.transpose(0, 1) for t in (q, k, v))
    padding = torch.tensor([[False] * 4, [False, False, True, True]])
    mask = torch.zeros(3, 4, dtype=torch.bool).index_fill(1, torch.tensor([1]), True)
    for given in ({}, {"key_padding_mask": padding}, {"attn_mask": mask}, {"attn_mask": mask.repeat(4, 1, 1)}):
        truth, out = (m(q, k, v, **weights, **given) for m in (layer, analog))
        assert close(out[0], truth[0])
        assert (out[1] is None) == (truth[1] is None)
        assert out[1] is None or close(out[1], truth[1])
    if layer.kdim == layer.vdim == 8:
        assert close(analog(q[0], k[0], v[0])[0], layer(q[0], k[0], v[0])[0])
    assert torch.equal(convert_to_digital(analog)(q, k, v)[0], layer(q, k, v)[0])


def test_an_encoder_does_not_slip_past_the_tiles(hardware):
    """In evaluation torch's encoder takes a fused path around its own submodules; here it must not."""
    torch.manual_seed(1)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dtype=torch.float64)
    encoder = nn.TransformerEncoder(block, 2).eval()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        exact = convert_to_analog(encoder, hardware, non_idealities=OFF)
        noisy = convert_to_analog(encoder, hardware, non_idealities=NonIdealities.none(programming=True))
        assert close(exact(x), encoder(x))
        assert not close(noisy(x), encoder(x))
        assert torch.equal(convert_to_digital(noisy)(x), encoder(x))


def test_the_products_can_stay_digital(hardware):
    torch.manual_seed(2)
    layer = nn.MultiheadAttention(8, 2, dtype=torch.float64)
    x = torch.randn(3, 2, 8, dtype=torch.float64)
    for exclude, dynamic in (([], 2), (["products"], 0)):
        analog = convert_to_analog(layer, hardware, non_idealities=OFF, exclude=exclude)
        assert sum(isinstance(m, DynamicCrossbar) for m in analog.modules()) == dynamic
        assert close(analog(x, x, x)[0], layer(x, x, x)[0])
    only = convert_to_analog(layer, hardware, non_idealities=OFF, exclude=["out_proj"])
    assert type(only.out_proj) is type(layer.out_proj)
    assert close(only(x, x, x)[0], layer(x, x, x)[0])


def tiny(name: str):
    """A block stack of that family with random weights."""
    import transformers as hf

    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 20}
    torch.manual_seed(3)
    if name == "bert":
        return hf.BertModel(hf.BertConfig(**shape)).eval()
    if name == "albert":
        return hf.AlbertModel(hf.AlbertConfig(embedding_size=4, **shape)).eval()
    if name == "gpt2":
        config = hf.GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=8, vocab_size=20, bos_token_id=1, eos_token_id=2)
        return hf.GPT2LMHeadModel(config).eval()
    shape["num_attention_heads"] = 4
    return hf.LlamaForCausalLM(hf.LlamaConfig(num_key_value_heads=2, pad_token_id=0, **shape)).eval()


# Layers of each family: (linear or Conv1D crossbars, products).
COUNTS = {"bert": (13, 4), "albert": (8, 2), "gpt2": (9, 4), "llama": (15, 4)}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hugging_face_blocks(hardware, name, dtype):
    model = tiny(name).to(dtype)
    ids = torch.randint(3, 20, (2, 5), generator=torch.Generator().manual_seed(4))
    mask = torch.ones(2, 5, dtype=torch.long)
    mask[1, 3:] = 0
    analog = convert_to_analog(model, hardware, non_idealities=OFF)
    assert list(analog.state_dict()) == list(model.state_dict())
    parts = mapping_table(analog).layers
    assert (sum(r.rows > 0 for r in parts), sum(r.rows == 0 for r in parts)) == COUNTS[name]
    before = model.config._attn_implementation
    with torch.no_grad():
        for given in ({}, {"attention_mask": mask}):
            truth, out = (m(input_ids=ids, **given)[0] for m in (model, analog))
            # Padded positions mean nothing, and the library's own attentions differ there.
            assert close(out[0], truth[0])
            assert close(out[1, :3], truth[1, :3])
        back = convert_to_digital(analog)
        assert torch.equal(back(input_ids=ids)[0], model(input_ids=ids)[0])
    assert back.config._attn_implementation == model.config._attn_implementation == before
    assert str(back) == str(model)


def test_hugging_face_products_can_stay_digital(hardware):
    model = tiny("llama").double()
    ids = torch.arange(3, 8)[None]
    with torch.no_grad():
        whole = convert_to_analog(model, hardware, non_idealities=OFF, exclude=["*.products", "lm_head"])
        assert close(whole(input_ids=ids)[0], model(input_ids=ids)[0])
        # One block's products digital beside another's analog.
        half = convert_to_analog(model, hardware, non_idealities=OFF, exclude=["model.layers.0.self_attn.products"])
        assert close(half(input_ids=ids)[0], model(input_ids=ids)[0])
    assert not any(isinstance(m, DynamicCrossbar) for m in whole.modules())
    assert sum(isinstance(m, DynamicCrossbar) for m in half.modules()) == 2


def test_gradients_reach_everything(hardware):
    torch.manual_seed(5)
    layer = nn.TransformerEncoderLayer(6, 2, 6, batch_first=True, dropout=0.0, dtype=torch.float64)
    analog = convert_to_analog(layer, hardware, non_idealities=OFF)
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    for model in (layer, analog):
        model(x).square().sum().backward()
    for (name, p), q in zip(layer.named_parameters(), analog.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-9, atol=1e-11), name
