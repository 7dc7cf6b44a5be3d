"""What a `config.json` may say of an encoder, and the weights that the encoder then has.

The keys here are all that decide what an encoder computes; `peft_study.encoders.backbone` hands no
others on. What `peft_study.training.packing` does not compute is refused, a model of another kind,
say, or heads taken out. It holds for the architectures of `RULES`; of others nothing is known.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Config = dict[str, Any]
Shape = tuple[int, ...]

ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python"),
    *("gelu_python_tanh", "gelu_pytorch_tanh", "laplace", "leaky_relu", "linear", "mish"),
    *("quick_gelu", "relu", "relu2", "relu6", "sigmoid", "silu", "swish", "tanh"),
)
MOST = 10**6  # of what no weight bounds: a larger number is a slip
# What may be said with one value alone: the packed step computes as that value says. None says the
# same as what is false or empty; not as a word, which transformers then compares with None.
ONLY: Config = {
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "position_embedding_type": "absolute",
    "pruned_heads": {},
    "quantization_config": None,
}


class Rule(NamedTuple):
    """What a value must be, in words and in code."""

    allowed: str
    holds: Callable[[Any], bool]


def _whole(least: int) -> Rule:
    allowed = f"a whole number of at least {least}"
    return Rule(allowed, lambda value: type(value) is int and value >= least)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool and abs(value) <= MOST


def _or_null(rule: Rule) -> Rule:
    return Rule(f"{rule.allowed}, or null", lambda value: value is None or rule.holds(value))


COUNT = _whole(1)
INTEGER = Rule(
    f"a whole number from -{MOST} to {MOST}",
    lambda value: type(value) is int and abs(value) <= MOST,
)
POSITIVE = Rule("a positive number", lambda value: _number(value) and value > 0)
SPREAD = Rule("a number of at least 0", lambda value: _number(value) and value >= 0)
FRACTION = Rule("a number from 0 to below 1", lambda value: _number(value) and 0 <= value < 1)
SWITCH = Rule("true or false", lambda value: type(value) is bool)
WORD = Rule("a word", lambda value: type(value) is str)
ACTIVATION = Rule(
    f"one of {', '.join(ACTIVATIONS)}", lambda value: type(value) is str and value in ACTIVATIONS
)
TERMS = Rule("of c2p and p2c", lambda value: set(_terms(value)) <= {"c2p", "p2c"})
KERNEL = Rule(
    "0 or an odd number", lambda value: type(value) is int and (value == 0 or value % 2 == 1)
)

SIZES = (
    *("hidden_size", "max_position_embeddings", "num_attention_heads"),
    *("num_hidden_layers", "vocab_size"),
)
_SHARED = dict.fromkeys((*SIZES, "intermediate_size"), COUNT) | {
    "attention_probs_dropout_prob": FRACTION,
    "hidden_act": ACTIVATION,
    "hidden_dropout_prob": FRACTION,
    "initializer_range": SPREAD,
    "layer_norm_eps": POSITIVE,
}
_BERT = _SHARED | {
    "classifier_dropout": _or_null(FRACTION),
    "pad_token_id": _or_null(_whole(0)),
    "type_vocab_size": COUNT,
}
RULES: dict[str, dict[str, Rule]] = {
    "bert": _BERT,
    # It counts positions from the padding's number on.
    "roberta": _BERT | {"pad_token_id": _whole(0)},
    "deberta-v2": _SHARED
    | {
        "attention_head_size": COUNT,
        "cls_dropout": _or_null(FRACTION),
        "conv_act": ACTIVATION,
        "conv_groups": COUNT,
        "conv_kernel_size": KERNEL,
        "embedding_size": COUNT,
        "max_relative_positions": INTEGER,
        "norm_rel_ebd": WORD,
        "pad_token_id": _or_null(_whole(0)),
        "pooler_dropout": FRACTION,
        "pooler_hidden_act": ACTIVATION,
        "pooler_hidden_size": COUNT,
        "pos_att_type": TERMS,
        "position_biased_input": SWITCH,
        "position_buckets": INTEGER,
        "relative_attention": SWITCH,
        "share_att_key": SWITCH,
        "type_vocab_size": _whole(0),
    },
}
# What the classes of transformers take where a configuration says nothing.
_DEFAULTS: dict[str, Config] = {
    "bert": {"intermediate_size": 3072, "type_vocab_size": 2, "pad_token_id": 0},
    "roberta": {"intermediate_size": 3072, "type_vocab_size": 2, "pad_token_id": 1},
    "deberta-v2": {
        **{"intermediate_size": 6144, "type_vocab_size": 0, "pad_token_id": 0},
        **{"position_biased_input": True, "relative_attention": False, "pos_att_type": None},
        **{"max_relative_positions": -1, "position_buckets": -1, "norm_rel_ebd": "none"},
        **{"share_att_key": False, "conv_kernel_size": 0, "conv_groups": 1},
    },
}


def known_keys(config: Config) -> Config:
    """Return what decides the encoder's computation, and its kind; all that is said of others."""
    rules = RULES.get(config["model_type"])
    if rules is None:
        return config
    return {"model_type": config["model_type"]} | {k: config[k] for k in rules if k in config}


def problem(config: Config) -> str | None:
    """Return what is wrong with a configuration in words, or None: the key, its value, the rule."""
    for key, only in ONLY.items():
        value = config.get(key, only)
        if value != only and (only or value is not None):
            return f"{key} is {value!r}; must be {only!r}, or not there"
    kind, known = config["model_type"], complete(config)
    for key, rule in RULES.get(kind, dict.fromkeys(SIZES, COUNT)).items():
        if key in SIZES and key not in known:
            return f"{key} is missing; must be {rule.allowed}"
        if key in known and not rule.holds(known[key]):
            return f"{key} is {known[key]!r}; must be {rule.allowed}"
    width, heads = known["hidden_size"], known["num_attention_heads"]
    if width % heads:
        return f"hidden_size is {width}; must be a multiple of num_attention_heads {heads}"
    return _contradiction(known) if kind in RULES else None


def complete(config: Config) -> Config:
    """Return what is known of an encoder, with what its kind takes for the keys that it lacks."""
    return _DEFAULTS.get(config["model_type"], {}) | known_keys(config)


def _contradiction(config: Config) -> str | None:
    width, padding = config["hidden_size"], config["pad_token_id"]
    for key, only in (
        ("attention_head_size", width // config["num_attention_heads"]),
        ("pooler_hidden_size", width),
    ):
        if config.get(key, only) != only:
            return f"{key} is {config[key]}; must be {only} where hidden_size is {width}"
    if width % config.get("conv_groups", 1):
        return f"conv_groups is {config['conv_groups']}; must divide hidden_size {width}"
    if padding is not None and padding >= config["vocab_size"]:
        return f"pad_token_id is {padding}; must be below vocab_size {config['vocab_size']}"
    if config["max_position_embeddings"] > MOST:
        found = config["max_position_embeddings"]
        return f"max_position_embeddings is {found}; must be at most {MOST}"
    return None


def weights(
    config: Config, projections: dict[str, str], pooler: bool
) -> Iterator[tuple[str, Shape]]:
    """Yield the name and the shape of each weight of an encoder of `RULES`.

    Args:
        config: one without a `problem`.
        projections: of the architecture, where a layer's query, key, value and output are.
        pooler: whether it has one.
    """
    config = complete(config)
    width: int = config["hidden_size"]
    inner: int = config["intermediate_size"]
    embedded: int = config.get("embedding_size", width)
    placed: bool = config.get("position_biased_input", True)
    for name, rows in (
        ("word_embeddings", config["vocab_size"]),
        ("position_embeddings", config["max_position_embeddings"] * placed),
        ("token_type_embeddings", config["type_vocab_size"]),
    ):
        if rows:
            yield f"embeddings.{name}.weight", (rows, embedded)
    if embedded != width:
        yield "embeddings.embed_proj.weight", (width, embedded)
    yield from _norm("embeddings.LayerNorm", width)
    if pooler:
        yield from _linear("pooler.dense", width, width)
    relative = config.get("relative_attention", False)
    terms = _terms(config.get("pos_att_type")) if relative and not config["share_att_key"] else []
    if relative:
        yield "encoder.rel_embeddings.weight", (2 * _span(config), width)
    if "layer_norm" in _split(config.get("norm_rel_ebd", "none")):
        yield from _norm("encoder.LayerNorm", width)
    if kernel := config.get("conv_kernel_size", 0):
        yield "encoder.conv.conv.weight", (width, width // config["conv_groups"], kernel)
        yield "encoder.conv.conv.bias", (width,)
        yield from _norm("encoder.conv.LayerNorm", width)
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        for path in projections.values():
            yield from _linear(f"{layer}.{path}", width, width)
        for term, name in (("c2p", "pos_key_proj"), ("p2c", "pos_query_proj")):
            if term in terms:
                yield from _linear(f"{layer}.attention.self.{name}", width, width)
        yield from _norm(f"{layer}.attention.output.LayerNorm", width)
        yield from _linear(f"{layer}.intermediate.dense", inner, width)
        yield from _linear(f"{layer}.output.dense", width, inner)
        yield from _norm(f"{layer}.output.LayerNorm", width)


def _span(config: Config) -> int:
    """Return how far relative positions are told apart, on either side."""
    furthest = config["max_relative_positions"]
    furthest = furthest if furthest >= 1 else config["max_position_embeddings"]
    return config["position_buckets"] if config["position_buckets"] > 0 else furthest


def _linear(name: str, out: int, into: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _terms(said: object) -> list[str]:
    """Return DeBERTa's terms of attention, which it names in a list or in a word; None: none."""
    if isinstance(said, str):
        return [term for term in _split(said) if term]
    return [str(term) for term in ([] if said is None else said if isinstance(said, list) else "?")]


def _split(said: str) -> list[str]:
    return [part.strip() for part in said.lower().split("|")]
