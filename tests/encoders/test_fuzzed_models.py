"""Whatever a model's files say: it computes as transformers would, or is refused in one line."""

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_utils import no_init_weights

from conftest import FUZZ, outcome
from peft_study.encoders import layout
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.encoders.backbone import head_modules, load_model
from peft_study.encoders.pretrained import longest_text, model_config
from peft_study.errors import StudyError
from peft_study.training.batches import Split
from peft_study.training.packing import classify, pack

Config = dict[str, Any]
Weights = dict[str, Tensor]
VOCABULARY = 23
torch.set_num_threads(1)  # of models as small as these, a second would be waited for
# --- Models that are sound ---------------------------------------------------------------------

_SIZES = {
    "hidden_size": st.sampled_from([4, 8]),
    "intermediate_size": st.integers(1, 9),
    "num_hidden_layers": st.integers(1, 3),
    "num_attention_heads": st.sampled_from([1, 2, 4]),
    "vocab_size": st.just(VOCABULARY),
    "max_position_embeddings": st.integers(12, 20),
}
_ANY = {
    "hidden_act": st.sampled_from(layout.ACTIVATIONS),
    "hidden_dropout_prob": st.sampled_from([0.0, 0.5]),
    "attention_probs_dropout_prob": st.sampled_from([0.0, 0.5]),
    "initializer_range": st.sampled_from([0.02, 1.0]),
    "layer_norm_eps": st.sampled_from([1e-12, 1e-5]),
}
_BERT = _ANY | {
    "type_vocab_size": st.integers(1, 3),
    "pad_token_id": st.integers(0, 5),
    "classifier_dropout": st.sampled_from([None, 0.1]),
}
SOUND: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "bert": _BERT | {"pad_token_id": st.none() | st.integers(0, VOCABULARY - 1)},
    "roberta": _BERT,
    "deberta-v2": _ANY
    | {
        "type_vocab_size": st.integers(0, 2),
        "pad_token_id": st.none() | st.integers(0, 5),
        "relative_attention": st.booleans(),
        "position_biased_input": st.booleans(),
        "pos_att_type": st.sampled_from([None, [], ["c2p"], "p2c", "p2c|c2p", ["c2p", "p2c"]]),
        "position_buckets": st.sampled_from([-1, 1, 2, 4, 8]),
        "max_relative_positions": st.sampled_from([-1, 1, 5, 40]),
        "share_att_key": st.booleans(),
        "norm_rel_ebd": st.sampled_from(["none", "layer_norm"]),
        "conv_kernel_size": st.sampled_from([0, 1, 3, 5]),
        "conv_groups": st.sampled_from([1, 2]),
        "conv_act": st.sampled_from(layout.ACTIVATIONS),
        "embedding_size": st.integers(3, 8),
        "pooler_hidden_act": st.sampled_from(layout.ACTIVATIONS),
        "cls_dropout": st.sampled_from([None, 0.1]),
    },
}


@st.composite
def sound(draw: st.DrawFn) -> Config:
    """Draw a configuration whose keys, but the sizes, may be missing."""
    kind = draw(st.sampled_from(sorted(SOUND)))
    said = draw(st.fixed_dictionaries(_SIZES, optional=SOUND[kind]))
    return {"model_type": kind} | said


def built(config: Config) -> PreTrainedModel:
    """Build a classifier whose weights are whatever memory held."""
    with no_init_weights():
        shape = AutoConfig.for_model(**config)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(shape)
    return model


def drawn(model: PreTrainedModel) -> Weights:
    """Return weights for a model, none of them as they would start."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.empty(weight.shape).normal_(generator=generator)
        for name, weight in model.state_dict().items()
    }


# --- What may become of them -------------------------------------------------------------------

KEYS = sorted(
    {key for rules in layout.RULES.values() for key in rules}
    | set(layout.ONLY)
    | {"_attn_implementation", "_name_or_path", "adapters", "architectures", "attn_implementation"}
    | {"auto_map", "dtype", "gradient_checkpointing", "id2label", "label2id", "model_type"}
    | {"num_labels", "output_attentions", "output_hidden_states", "problem_type", "return_dict"}
    | {"tie_word_embeddings", "torch_dtype", "torchscript", "transformers_weights", "use_cache"}
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([10**9, 10**400, -(10**30), 1e300, 1e-320, float("nan"), float("inf"), 0.5]),
    st.floats(),
    st.sampled_from(
        ["", "4", "none", "relative_key", "c2p|p2p", "gelu", "prelu", "eager", "model"]
    ),
    st.text(max_size=5),
    st.lists(st.none() | st.integers(0, 3) | st.sampled_from(["c2p", "C2P"]), max_size=3),
    st.dictionaries(st.sampled_from(["0", "x"]), st.integers(0, 1) | st.just([0])),
)
KEY = st.sampled_from(KEYS)
EDIT = st.one_of(
    st.tuples(KEY, st.just(True)), st.tuples(KEY, VALUES), st.tuples(st.text(max_size=8), VALUES)
)


def renamed(change: Callable[[str], str]) -> Callable[[Weights, int], Weights]:
    return lambda weights, _: {change(name): weight for name, weight in weights.items()}


def one(change: Callable[[Tensor], Tensor]) -> Callable[[Weights, int], Weights]:
    """Change the weight whose number it is."""

    def edit(weights: Weights, number: int) -> Weights:
        name = sorted(weights)[number % len(weights)] if weights else ""
        return {n: change(w).contiguous() if n == name else w for n, w in weights.items()}

    return edit


def without(weights: Weights, number: int) -> Weights:
    name = sorted(weights)[number % len(weights)] if weights else ""
    return {n: w for n, w in weights.items() if n != name}


def headless(weights: Weights, _: int) -> Weights:
    """Leave what training to fill in words leaves: neither a head nor a pooler."""
    return {n: w for n, w in weights.items() if not ("pooler" in n or "classifier" in n)}


CHANGES: dict[str, Callable[[Weights, int], Weights]] = {
    "compiled": renamed(lambda name: f"_orig_mod.{name}"),
    "wrapped": renamed(lambda name: f"module.{name}"),
    "without its own name": renamed(lambda name: re.sub("^(ro|de)?berta?[.]", "", name)),
    "an encoder's alone": lambda weights, _: {
        name.partition(".")[2]: weight
        for name, weight in weights.items()
        if re.match("(ro|de)?berta?[.]", name)
    },
    "an old norm's": renamed(
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )
    ),
    "another layer's": renamed(lambda name: name.replace("layer.0.", "layer.7.")),
    "headless": headless,
    "one missing": without,
    "a row less": one(lambda weight: weight[1:]),
    "turned": one(lambda weight: weight.t() if weight.ndim == 2 else weight[None]),
    "in half precision": one(Tensor.half),
    "in whole numbers": one(lambda weight: weight.to(torch.int8)),
    "in eight bits": one(lambda weight: weight.to(torch.float8_e5m2)),
    "one more": lambda weights, _: weights | {"cls.predictions.bias": torch.zeros(VOCABULARY)},
    "one of another base": lambda weights, _: weights | {"bertha": torch.zeros(1)},
}
FORMATS = [{"format": "pt"}, None, {"format": "tf"}, {"made": "by hand"}]


@st.composite
def changed(draw: st.DrawFn) -> tuple[Config, list[tuple[str, int]]]:
    """Draw what is done to a model: edits of its configuration, and of its weights."""
    what = st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 99)), max_size=2)
    return dict(draw(st.lists(EDIT, max_size=2))), draw(what)


def save(
    folder: Path, config: Config, weights: Weights, said: dict[str, str] | None, shards: bool
) -> None:
    """Write a model as `model.name` may point to it; a shard of another may lie beside it."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("[PAD]\n")
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    if not shards:
        save_file(weights, folder / "model.safetensors", said)
        return
    names = sorted(weights)
    parts = {first: names[::2], second: names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file, said)
    places = {name: file for file, part in parts.items() for name in part}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    stray = {"encoder.layer.9.output.dense.weight": torch.zeros(1)}
    save_file(stray, folder / "model-00003-of-00003.safetensors", said)


# A byte of the configuration, of an index, or of the header of weights that is another.
SPOILT = st.tuples(
    st.sampled_from(["config.json", "*.index.json", "*.safetensors"]),
    st.integers(0, 2000),
    st.integers(0, 255) | st.sampled_from(b'0123456789"{}[],:.'),
)


def spoil(files: list[Path], place: int, byte: int) -> None:
    for path in files[:1]:
        content = bytearray(path.read_bytes())
        length = len(content)
        if path.suffix == ".safetensors":
            length = 8 + int.from_bytes(content[:8], "little")  # what is not the weights' own bytes
        content[place % length] = byte
        path.write_bytes(content)


# --- The two ways of computing -----------------------------------------------------------------


def texts(config: Config, numbers: list[int]) -> Split:
    """Return rows of tokens, the padding's among them, and of their types."""
    generator = torch.Generator().manual_seed(len(numbers))
    lengths = [1 + number % longest_text(config) for number in numbers]
    padding, types = config.get("pad_token_id"), max(1, config.get("type_vocab_size") or 1)
    ids, kinds = [], []
    for length in lengths:
        row = torch.randint(config["vocab_size"], (length,), generator=generator)
        ids.append(row if padding is None or length % 3 else row.masked_fill(row % 5 == 0, padding))
        kinds.append(torch.randint(types, (length,), generator=generator))
    columns: dict[str, Sequence[Tensor]] = {"input_ids": ids, "token_type_ids": kinds}
    return Split([str(n) for n in lengths], columns, torch.zeros(len(lengths)))


def padded(model: PreTrainedModel, split: Split) -> Tensor:
    """Return the logits of the model's own forward, padded to the longest text."""
    value = model.config.pad_token_id or 0
    inputs = {n: pad_sequence(list(c), batch_first=True) for n, c in split.columns.items()}
    ids = list(split.columns["input_ids"])
    inputs["input_ids"] = pad_sequence(ids, batch_first=True, padding_value=value)
    inputs["attention_mask"] = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    logits: Tensor = model(**inputs, return_dict=True).logits
    return logits


def as_transformers_has_it(folder: Path, ours: PreTrainedModel, split: Split) -> Tensor:
    """Return the logits by all that a folder says of itself, with the head of `ours`."""
    try:
        theirs: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=2, dtype=torch.float32, ignore_mismatched_sizes=True
        )
        for head in head_modules(ours):
            state = ours.get_submodule(head).state_dict()
            theirs.get_submodule(head).load_state_dict(state)
        return padded(theirs.eval(), split)
    except Exception:  # over what does not concern the encoder, say the labels of its head
        return padded(ours, split)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of keys that decide nothing
@FUZZ
@given(
    config=sound(),
    change=changed(),
    said=st.sampled_from(FORMATS[:2]) | st.sampled_from(FORMATS),
    shards=st.booleans(),
    spoilt=st.lists(SPOILT, max_size=1),
    rows=st.lists(st.integers(0, 99), min_size=1, max_size=5),
)
def test_a_model_computes_as_it_says_or_is_refused_in_one_line(
    config: Config,
    change: tuple[Config, list[tuple[str, int]]],
    said: dict[str, str] | None,
    shards: bool,
    spoilt: list[tuple[str, int, int]],
    rows: list[int],
) -> None:
    weights = drawn(built(config))
    edits, changes = change
    for what, number in changes:
        weights = CHANGES[what](weights, number)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save(folder, config | edits, weights, said, shards and len(weights) > 1)
        for files, place, byte in spoilt:
            spoil(sorted(folder.glob(files)), place, byte)
        found = outcome(lambda: model_config(str(folder)))
        if isinstance(found, StudyError):
            assert str(found).startswith(f"model.name is '{folder}': ")
            assert edits or changes or spoilt or said not in FORMATS[:2]
            return
        # Nothing is found out later.
        model = load_model(str(folder), 2, seed=0).eval()
        split = texts(found, rows)
        with torch.no_grad():
            ours = classify(model, pack(split, list(range(len(split))), model))
            theirs = as_transformers_has_it(folder, model, split)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, equal_nan=True)


@FUZZ
@given(config=sound())
def test_the_weights_of_an_encoder_are_those_that_transformers_builds(config: Config) -> None:
    names = ARCHITECTURES[config["model_type"]]
    model = getattr(built(config), names.base)
    wanted = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    pooler = names.pooler == f"{names.base}.pooler"
    assert dict(layout.weights(config, names.projections, pooler)) == wanted
