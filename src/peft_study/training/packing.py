"""Batches without padding, exactly.

Everything that an encoder computes for a token alone, which is nearly all of it, is computed on the
tokens of all examples laid end to end. Only attention sees the examples side by side, padded to
the longest. The last layer computes no more than the heads read: every example's first token.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from peft_study.architectures import architecture
from peft_study.training.batches import Split


class Batch(NamedTuple):
    """Examples as `classify` reads them.

    Attributes:
        inputs: `input_ids`, `token_type_ids` and `position_ids`, each of shape (1, tokens).
        first: position of every example's first token, shape (examples,).
        example: of every token, which example it belongs to, shape (tokens,).
        place: of every token, its place within the example, shape (tokens,).
        bias: what attention adds to its scores: 0 for tokens, minus infinity for the padding of
            examples to the longest, shape (examples, 1, 1, longest).
    """

    inputs: dict[str, Tensor]
    first: Tensor
    example: Tensor
    place: Tensor
    bias: Tensor

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return len(self.place)


def pack(split: Split, examples: list[int], model: PreTrainedModel) -> Batch:
    """Lay the tokens of `examples`, row numbers of `split`, end to end."""
    config: Any = model.config
    rows = {name: [column[i] for i in examples] for name, column in split.columns.items()}
    lengths = torch.tensor([len(row) for row in rows["input_ids"]])
    inputs = {name: torch.cat(column) for name, column in rows.items()}
    inputs.setdefault("token_type_ids", torch.zeros_like(inputs["input_ids"]))
    first = lengths.cumsum(0) - lengths
    example = torch.arange(len(lengths)).repeat_interleave(lengths)
    place = torch.arange(len(example)) - first[example]
    # RoBERTa counts positions from the padding index.
    origin = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    inputs["position_ids"] = place + origin
    padding = torch.arange(int(lengths.max())) >= lengths[:, None]
    bias = torch.zeros(padding.shape).masked_fill(padding, -torch.inf)
    placed = {name: tensor[None].to(model.device) for name, tensor in inputs.items()}
    others = (first, example, place, bias[:, None, None])
    return Batch(placed, *(tensor.to(model.device) for tensor in others))


def classify(model: Any, batch: Batch) -> Tensor:
    """Return the logits (examples, outputs) of a batch, as the model's own forward would.

    The layers are the model's own modules, as a method has adapted them; what replaces the model's
    own code is the way between them.
    """
    base = getattr(model, architecture(model.config.model_type).base)
    embedded = base.embeddings(**batch.inputs)[0]
    hidden, relative = embedded, _relative_positions(base, batch)
    convolution = getattr(base.encoder, "conv", None)
    layers = list(enumerate(base.encoder.layer, 1))
    for number, layer in layers:
        convolved = number == 1 and convolution is not None
        first_only = number == len(layers) and not convolved
        context = attend(model, layer, hidden, batch, relative, first_only)
        hidden = _feed_forward(layer, hidden[batch.first] if first_only else hidden, context)
        if convolved:
            hidden = _convolve(convolution, embedded, hidden, batch)
    # The heads read the first token of a sequence: give each example's as a sequence of one.
    first = (hidden if first_only else hidden[batch.first])[:, None]
    if model.config.model_type == "roberta":
        logits: Tensor = model.classifier(first)
    else:
        pooler = base.pooler if model.config.model_type == "bert" else model.pooler
        logits = model.classifier(model.dropout(pooler(first)))
    return logits


def attend(
    model: Any,
    layer: Any,
    hidden: Tensor,
    batch: Batch,
    relative: tuple[Tensor, Tensor] | None = None,
    first_only: bool = False,
) -> Tensor:
    """Let every token of `hidden` (tokens, width) attend to its own example.

    Args:
        model: a classifier of a known architecture.
        layer: one of its layers.
        hidden: what the layer reads.
        batch: where the examples lie.
        relative: DeBERTa-v2's relative positions and their embeddings.
        first_only: return what the first tokens read, (examples, width), and no more.

    Source: Vaswani et al. 2017, equation 1; with `relative`, He et al. 2021 (DeBERTa), equation 4.
    """
    attention = layer.attention.self
    paths = architecture(model.config.model_type).projections
    query, key, value = (layer.get_submodule(paths[name]) for name in ("query", "key", "value"))
    heads = attention.num_attention_heads
    k, v = (SideBySide.apply(part(hidden), batch, heads) for part in (key, value))
    # transformers computes DeBERTa-v2's terms of positions for as many queries as keys only.
    if first_only and relative is None:
        q = query(hidden[batch.first]).view(len(batch.first), heads, 1, -1)
    else:
        q = SideBySide.apply(query(hidden), batch, heads)
    terms = 1 + len({"c2p", "p2c"} & set(getattr(attention, "pos_att_type", ())))
    scores = (q * (q.shape[-1] * terms) ** -0.5) @ k.transpose(-1, -2)
    if relative is not None:
        positions, embeddings = relative
        scores = scores + attention.disentangled_attention_bias(
            q.flatten(0, 1), k.flatten(0, 1), positions, attention.pos_dropout(embeddings), terms
        ).view_as(scores)
    probabilities = attention.dropout(scores.add_(batch.bias).softmax(-1))
    context = probabilities @ v
    if first_only:
        return context[:, :, 0].flatten(1)
    return EndToEnd.apply(context, batch)


class SideBySide(torch.autograd.Function):
    """Lay (tokens, heads * width) out as (examples, heads, longest, width), with zeros between.

    Indexing would do, but its gradient is a sum over equal indices; no two tokens share a place.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, batch: Batch, heads: int) -> Tensor:
        ctx.batch = batch
        return _side_by_side(tokens, batch, heads)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _end_to_end(gradient, ctx.batch), None, None


class EndToEnd(torch.autograd.Function):
    """The inverse of `SideBySide`."""

    @staticmethod
    def forward(ctx: Any, examples: Tensor, batch: Batch) -> Tensor:
        ctx.batch, ctx.heads = batch, examples.shape[1]
        return _end_to_end(examples, batch)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _side_by_side(gradient, ctx.batch, ctx.heads), None


def _side_by_side(tokens: Tensor, batch: Batch, heads: int) -> Tensor:
    split = tokens.unflatten(1, (heads, -1))
    shape = (len(batch.first), heads, batch.bias.shape[-1], split.shape[-1])
    examples = tokens.new_zeros(shape)
    examples[batch.example, :, batch.place] = split
    return examples


def _end_to_end(examples: Tensor, batch: Batch) -> Tensor:
    return examples[batch.example, :, batch.place].flatten(1)


def _feed_forward(layer: Any, hidden: Tensor, context: Tensor) -> Tensor:
    attended = layer.attention.output(context, hidden)
    fed: Tensor = layer.output(layer.intermediate(attended), attended)
    return fed


def _relative_positions(base: Any, batch: Batch) -> tuple[Tensor, Tensor] | None:
    """Return the relative positions (1, longest, longest) of DeBERTa-v2, and their embeddings."""
    if not getattr(base.encoder, "relative_attention", False):
        return None
    of_that_length = batch.bias[:, 0, 0, :, None]
    return base.encoder.get_rel_pos(of_that_length), base.encoder.get_rel_embedding()


def _convolve(convolution: Any, embedded: Tensor, hidden: Tensor, batch: Batch) -> Tensor:
    """Apply DeBERTa-v2's convolution to each example by itself."""
    padded = [SideBySide.apply(tokens, batch, 1).squeeze(1) for tokens in (embedded, hidden)]
    mask = (batch.bias[:, 0, 0] == 0).long()
    return EndToEnd.apply(convolution(*padded, mask)[:, None], batch)
