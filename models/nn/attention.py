"""Attention: the two products of activations on tiles that are written anew for each, and nn.MultiheadAttention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimcard.models.nn.crossbar import Crossbar, DynamicCrossbar, Plan
from aimcard.models.nn.layer import AnalogLayer


def attention_weights(scores: Tensor) -> Tensor:
    """Softmax over the keys, in float32 at least."""
    wide = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    return torch.softmax(wide, dim=-1).to(scores.dtype)


class AnalogProducts(nn.Module):
    """Scores q·kᵀ and context p·v, tiles of its own for each batch entry and head: keys and values are the conductances."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.scores = DynamicCrossbar(plan.part("scores"))
        self.context = DynamicCrossbar(plan.part("context"))

    @staticmethod
    def product(crossbar: Crossbar, x: Tensor, matrix: Tensor) -> Tensor:
        """x (..., n, rows) times matrix (..., outputs, rows) transposed -> (..., n, outputs)."""
        if not x.numel() or not matrix.numel():
            return x @ matrix.mT
        return crossbar(matrix.flatten(0, -3), x.flatten(0, -3)).unflatten(0, x.shape[:-2])

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float, dropout: float
    ) -> tuple[Tensor, Tensor]:
        """Context (batch, heads, queries, width) and weights (batch, heads, queries, keys); ``mask`` is added to the scores."""
        scores = self.product(self.scores, q, k) * scaling
        if mask is not None:
            scores = scores + mask
        weights = F.dropout(attention_weights(scores), dropout, training=dropout > 0)
        return self.product(self.context, weights, v.mT), weights


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, length, heads · width) -> (batch, heads, length, width)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class AnalogMultiheadAttention(AnalogLayer):
    """nn.MultiheadAttention with its four projections and, unless left digital, its two products on tiles."""

    digital = nn.MultiheadAttention
    embed_dim: int
    num_heads: int
    batch_first: bool
    add_zero_attn: bool
    dropout: float

    def build(self, plan: Plan) -> None:
        """As `AnalogLayer.build`: a crossbar for each of the query, key and value projections, and two for the products."""
        self.q, self.k, self.v = (Crossbar(plan.part(name)) for name in "qkv")
        self.separate = not self.__dict__["_qkv_same_embed_dim"]
        # The encoder layers of torch take a fused path of their own, around this module, where this is True.
        self._qkv_same_embed_dim = False
        self.products: AnalogProducts | None = AnalogProducts(plan)

    def crossbars(self) -> list[Crossbar]:
        """As `AnalogLayer.crossbars`; the two of the products only where these are not left digital."""
        extra = [] if self.products is None else [self.products.scores, self.products.context]
        return [self.q, self.k, self.v, *extra]

    def _is_analog(self, module: nn.Module | None) -> bool:
        return isinstance(module, Crossbar | AnalogProducts)

    def to_digital(self) -> nn.Module:
        """As `AnalogLayer.to_digital`; the products have no weights to hand over."""
        new = super().to_digital()
        new._modules.pop("products", None)
        return new

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.separate:
            return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight  # type: ignore[return-value]
        return self.in_proj_weight.chunk(3)  # type: ignore[operator,return-value]

    def matrices(self) -> list[tuple[Crossbar, Tensor]]:
        """As `AnalogLayer.matrices`, of the three projections."""
        return list(zip((self.q, self.k, self.v), self._weights(), strict=True))

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, need_weights: bool = True,
        attn_mask: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """As nn.MultiheadAttention's; ``is_causal`` is a hint there, and the mask alone decides here."""
        del is_causal
        single = query.ndim == 2
        q, k, v = (t[None] if single else t if self.batch_first else t.transpose(0, 1) for t in (query, key, value))
        bias = self.in_proj_bias
        biases = (None,) * 3 if bias is None else bias.chunk(3)  # type: ignore[operator]
        q, k, v = (c(w, t) if b is None else c(w, t) + b for (c, w), t, b in zip(self.matrices(), (q, k, v), biases, strict=True))
        added = 0
        if self.bias_k is not None:
            k, v = (torch.cat([t, b.expand(len(t), 1, -1)], 1) for t, b in ((k, self.bias_k), (v, self.bias_v)))  # type: ignore
            added += 1
        if self.add_zero_attn:
            k, v = (torch.cat([t, torch.zeros_like(t[:, :1])], 1) for t in (k, v))
            added += 1
        q, k, v = (split_heads(t, self.num_heads) for t in (q, k, v))
        mask = self._mask(q, k, attn_mask, key_padding_mask, added)
        dropout = self.dropout if self.training else 0.0
        scaling = 1 / math.sqrt(q.shape[-1])
        if self.products is not None:
            out, weights = self.products.attend(q, k, v, mask, scaling, dropout)
        else:
            scores = q @ k.mT * scaling
            weights = F.dropout(torch.softmax(scores if mask is None else scores + mask, -1), dropout, training=dropout > 0)
            out = weights @ v
        out = self.out_proj(out.transpose(1, 2).flatten(2))  # type: ignore[operator]
        out = out[0] if single else out if self.batch_first else out.transpose(0, 1)
        if not need_weights:
            return out, None
        weights = weights.mean(1) if average_attn_weights else weights
        return out, weights[0] if single else weights

    def _mask(self, q: Tensor, k: Tensor, attn_mask: Tensor | None, padding: Tensor | None, added: int) -> Tensor | None:
        """One mask to add, broadcastable to (batch, heads, queries, keys); ``added`` keys at the end are never masked."""
        total = None
        for given, shape in ((attn_mask, None), (padding, (-1, 1, 1))):
            if given is None:
                continue
            m = torch.zeros_like(given, dtype=q.dtype).masked_fill(given, -math.inf) if given.dtype == torch.bool else given
            if shape is not None:
                m = m.reshape(*shape, m.shape[-1])
            elif m.ndim == 3:
                m = m.reshape(-1, self.num_heads, *m.shape[1:])
            m = F.pad(m.to(q.dtype), (0, added))
            total = m if total is None else total + m
        del k
        return total
