"""Batches without padding, exactly.

Everything that an encoder computes for a token alone, which is nearly all of it, is computed on the
tokens of all examples laid end to end. Only attention sees examples side by side, a few at a time,
padded to the longest of them. The last layer computes no more than the heads read: every example's
first token.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_study.encoders.architectures import architecture
from peft_study.training.batches import Split
from peft_study.training.padding import Padded, pad, uses_own_forward

GROUP = 8  # examples that are padded to each other's length for attention


class Group(NamedTuple):
    """Consecutive examples that attend side by side, padded to the longest of them.

    Attributes:
        padded: for every place of every head, (examples * heads * longest), which of the group's
            (tokens * heads) rows is there; in padding that of the example's first token.
        placed: the inverse without the padding, (tokens * heads).
        real: 1 for tokens and 0 for padding, shape (examples * heads, longest, 1).
        bias: what attention adds to its scores: 0 for tokens, minus infinity for padding, shape
            (examples * heads, 1, longest).
    """

    padded: Tensor
    placed: Tensor
    real: Tensor
    bias: Tensor


class Batch(NamedTuple):
    """Examples as `classify` reads them.

    Attributes:
        inputs: `input_ids`, `token_type_ids` and `position_ids`, each of shape (1, tokens).
        first: position of every example's first token, shape (examples,).
        heads: of attention.
        groups: its examples, in their order.
        sizes: tokens * heads of each group.
    """

    inputs: dict[str, Tensor]
    first: Tensor
    heads: int
    groups: list[Group]
    sizes: list[int]

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return self.inputs["input_ids"].shape[1]


def pack(split: Split, examples: list[int], model: PreTrainedModel) -> Batch | Padded:
    """Lay the tokens of `examples`, row numbers of `split`, end to end.

    Least is computed where examples of similar lengths follow each other. For a model whose method
    needs its own forward they are padded instead.
    """
    if uses_own_forward(model):
        return pad(split, examples, model)
    config: Any = model.config
    rows = {name: [column[i] for i in examples] for name, column in split.columns.items()}
    lengths = torch.tensor([len(row) for row in rows["input_ids"]])
    inputs = {name: torch.cat(column) for name, column in rows.items()}
    inputs.setdefault("token_type_ids", torch.zeros_like(inputs["input_ids"]))
    first = lengths.cumsum(0) - lengths
    if architecture(config.model_type).positions_after_padding:
        # They number from the padding's number on, and leave its token out, should a text have it.
        real = (inputs["input_ids"] != config.pad_token_id).long()
        number = real.cumsum(0)
        before = (number - real)[first].repeat_interleave(lengths)
        inputs["position_ids"] = (number - before) * real + config.pad_token_id
    else:
        place = torch.arange(int(lengths.sum()))
        inputs["position_ids"] = place - first.repeat_interleave(lengths)
    # GPUs would wait for the start of each group's operations; DeBERTa-v2 would project the
    # embeddings of relative positions for each.
    device, heads = model.device, config.num_attention_heads
    in_one = device.type != "cpu" or getattr(config, "relative_attention", False)
    parts = lengths.split(len(lengths) if in_one else GROUP)
    groups = [_group(part, heads, device) for part in parts]
    sizes = [group.placed.numel() for group in groups]
    placed = {name: tensor[None].to(device) for name, tensor in inputs.items()}
    return Batch(placed, first.to(device), heads, groups, sizes)


def _group(lengths: Tensor, heads: int, device: torch.device) -> Group:
    place = torch.arange(int(lengths.max()))
    first, real = (lengths.cumsum(0) - lengths)[:, None], place < lengths[:, None]
    token = first + place * real
    padded = token[:, None] * heads + torch.arange(heads)[:, None]
    placed = torch.arange(padded.numel()).view_as(padded).transpose(1, 2)[real]
    of_heads = real.repeat_interleave(heads, 0)
    bias = torch.zeros(of_heads.shape).masked_fill(~of_heads, -torch.inf)[:, None]
    tensors = (padded.flatten(), placed.flatten(), of_heads[..., None].float(), bias)
    return Group(*(tensor.to(device) for tensor in tensors))


def classify(model: PreTrainedModel, batch: Batch | Padded) -> Tensor:
    """Return the logits (examples, outputs) of a batch, as the model's own forward would.

    The layers are the model's own modules, as a method has adapted them; what replaces the model's
    own code is the way between them.
    """
    if isinstance(batch, Padded):
        return model(**batch.inputs).logits
    names = architecture(model.config.model_type)
    base = getattr(model, names.base)
    encoder, relative = base.encoder, None
    if getattr(encoder, "relative_attention", False):  # DeBERTa-v2's, all examples in one group
        relative = encoder.get_rel_pos(batch.groups[0].real), encoder.get_rel_embedding()
    hidden = embedded = base.embeddings(**batch.inputs)[0]
    for number, layer in enumerate(encoder.layer, 1):
        convolved = number == 1 and getattr(encoder, "conv", None) is not None
        first_only = number == len(encoder.layer) and not convolved
        context = _attend(layer, names.projections, hidden, batch, relative, first_only)
        read = hidden[batch.first] if first_only else hidden
        attended = layer.attention.output(context, read)
        hidden = layer.output(layer.intermediate(attended), attended)
        if convolved:
            hidden = _convolve(encoder.conv, embedded, hidden, batch)
    # The heads read the first token of a sequence: give each example's as a sequence of one.
    first = (hidden if first_only else hidden[batch.first])[:, None]
    if names.pooler is not None:
        first = model.get_submodule("dropout")(model.get_submodule(names.pooler)(first))
    return model.get_submodule("classifier")(first)


def _attend(
    layer: Any,
    paths: dict[str, str],
    hidden: Tensor,
    batch: Batch,
    relative: tuple[Tensor, Tensor] | None,
    first_only: bool,
) -> Tensor:
    """Let every token of `hidden` (tokens, width) attend to its own example.

    Args:
        layer: of an encoder, whose projections are at `paths`.
        hidden: what the layer reads.
        batch: where the examples lie.
        relative: DeBERTa-v2's relative positions (1, longest, longest) and their embeddings.
        first_only: return what the first tokens read, (examples, width), and no more.

    Source: Vaswani et al. 2017, equation 1; with `relative`, He et al. 2021 (DeBERTa), equation 4.
    """
    attention = layer.attention.self
    query, key, value = (layer.get_submodule(paths[name]) for name in ("query", "key", "value"))
    keys, values = (SideBySide.apply(part(hidden), batch) for part in (key, value))
    # transformers computes DeBERTa-v2's terms of positions for as many queries as keys only.
    if first_only and relative is None:
        rows = query(hidden[batch.first]).view(-1, 1, attention.attention_head_size)
        queries = rows.split([len(group.real) for group in batch.groups])
    else:
        queries = SideBySide.apply(query(hidden), batch)
    terms = 1 + len({"c2p", "p2c"} & set(getattr(attention, "pos_att_type", ())))
    scale = (attention.attention_head_size * terms) ** -0.5
    contexts = []
    for group, q, k, v in zip(batch.groups, queries, keys, values, strict=True):
        scores = torch.baddbmm(group.bias, q, k.mT, alpha=scale)
        if relative is not None:
            positions, embeddings = relative
            scores = scores + attention.disentangled_attention_bias(
                q, k, positions, attention.pos_dropout(embeddings), terms
            )
        contexts.append(attention.dropout(scores.softmax(-1)) @ v)
    if first_only:
        return torch.cat([context[:, 0] for context in contexts]).view(len(batch.first), -1)
    return EndToEnd.apply(batch, *contexts)


class SideBySide(torch.autograd.Function):
    """Lay (tokens, heads * width) out by group as (examples * heads, longest, width).

    In padding stands the example's first token. Whoever reads the result must not let it matter:
    its gradient there is taken as zero.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        ctx.batch = batch
        return _side_by_side(tokens, batch)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _end_to_end(gradients, ctx.batch), None


class EndToEnd(torch.autograd.Function):
    """The inverse of `SideBySide`."""

    @staticmethod
    def forward(ctx: Any, batch: Batch, *groups: Tensor) -> Tensor:
        ctx.batch = batch
        return _end_to_end(groups, batch)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        groups = _side_by_side(gradient, ctx.batch)
        return None, *(part.mul_(g.real) for part, g in zip(groups, ctx.batch.groups, strict=True))


def _side_by_side(tokens: Tensor, batch: Batch) -> tuple[Tensor, ...]:
    rows = tokens.reshape(sum(batch.sizes), -1)
    return tuple(
        part.index_select(0, group.padded).view(*group.real.shape[:2], -1)
        for part, group in zip(rows.split(batch.sizes), batch.groups, strict=True)
    )


def _end_to_end(groups: tuple[Tensor, ...], batch: Batch) -> Tensor:
    width = groups[0].shape[-1]
    rows = groups[0].new_empty(sum(batch.sizes), width)
    for part, examples, group in zip(rows.split(batch.sizes), groups, batch.groups, strict=True):
        torch.index_select(examples.reshape(-1, width), 0, group.placed, out=part)
    return rows.view(batch.tokens, -1)


def _convolve(convolution: nn.Module, embedded: Tensor, hidden: Tensor, batch: Batch) -> Tensor:
    """Apply DeBERTa-v2's convolution to each example by itself."""
    sides = [SideBySide.apply(tokens, batch) for tokens in (embedded, hidden)]
    convolved = []
    for group, *parts in zip(batch.groups, *sides, strict=True):
        split = ((part * group.real).unflatten(0, (-1, batch.heads)) for part in parts)
        joined = (part.transpose(1, 2).flatten(2) for part in split)
        found = convolution(*joined, group.real[:: batch.heads, :, 0].long())
        convolved.append(found.unflatten(2, (batch.heads, -1)).transpose(1, 2).flatten(0, 1))
    return EndToEnd.apply(batch, *convolved)
