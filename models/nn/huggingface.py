"""Hugging Face transformers: GPT-2's Conv1D, and attention products by way of the library's attention registry.

Nothing here imports transformers on its own account: without it there are no such modules to convert.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor, nn

from aimcard.models.nn.attention import AnalogProducts, attention_weights
from aimcard.models.nn.crossbar import Crossbar, Plan
from aimcard.models.nn.layer import AnalogLayer

NAME = "aimcard"
#: Attribute of an attention module under which its products are, and that of its configuration for what it was before.
PRODUCTS = "analog_products"
_BEFORE = "_aimcard_digital_attention"


def is_conv1d(module: nn.Module) -> bool:
    """Whether the module is GPT-2's Conv1D, a linear layer with its weights (inputs, outputs)."""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"


def is_attention(module: nn.Module) -> bool:
    """Whether the module takes its two products from the library's registry (BERT, ALBERT, GPT-2, Llama and their kin)."""
    file = sys.modules.get(type(module).__module__)
    known = type(module).__module__.startswith("transformers.") and hasattr(file, "ALL_ATTENTION_FUNCTIONS")
    return known and hasattr(module, "is_causal") and hasattr(module, "config")


class AnalogConv1D(AnalogLayer):
    """GPT-2's Conv1D on tiles."""

    weight: Tensor
    bias: Tensor

    def build(self, plan: Plan) -> None:
        """As `AnalogLayer.build`: one crossbar."""
        self.crossbar = Crossbar(plan)

    def matrices(self) -> list[tuple[Crossbar, Tensor]]:
        """As `AnalogLayer.matrices`; Conv1D stores its weight as (inputs, outputs)."""
        return [(self.crossbar, self.weight.mT)]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) to (..., outputs)."""
        return self.crossbar(self.weight.mT, x) + self.bias


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, **_: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The library's attention function: (batch, heads, length, width) in, (batch, length, heads, width) out."""
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    scale: float = query.shape[-1] ** -0.5 if scaling is None else scaling
    products = getattr(module, PRODUCTS, None)
    if products is not None:
        out, weights = products.attend(query, key, value, attention_mask, scale, dropout)
    else:
        scores = query @ key.mT * scale
        scores = scores if attention_mask is None else scores + attention_mask
        weights = nn.functional.dropout(attention_weights(scores), dropout, dropout > 0)
        out = weights @ value
    return out.transpose(1, 2).contiguous(), weights


def convert_attention(module: nn.Module, plan: Plan) -> None:
    """Put the attention module's two products on tiles, in place."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask  # type: ignore[import-not-found]
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # type: ignore[import-not-found]

    ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
    # Without a mask function of that name the library would leave the mask out.
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)
    config: Any = module.config
    if config._attn_implementation != NAME:
        setattr(config, _BEFORE, config._attn_implementation)
        config._attn_implementation = NAME
    module.add_module(PRODUCTS, AnalogProducts(plan))


def restore_attention(module: nn.Module) -> None:
    """Undo ``convert_attention``, in place."""
    config: Any = module.config
    module._modules.pop(PRODUCTS, None)
    if hasattr(config, _BEFORE):
        config._attn_implementation = getattr(config, _BEFORE)
        delattr(config, _BEFORE)
