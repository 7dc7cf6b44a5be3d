"""Trainable parameters, counted on the papers' models in every implementation.

The counts need configurations only: the models are built without weights.
"""

import copy
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

from peft_study.encoders.architectures import WEIGHTS, architecture
from peft_study.encoders.backbone import set_head
from peft_study.errors import StudyError
from peft_study.files import read_json
from peft_study.methods import METHODS, load_method
from peft_study.methods.saved import count_trainable
from peft_study.parity.numbers import ALPHA, OTHERS, OURS, QUERY_VALUE
from peft_study.records.costs import Recipe
from peft_study.records.scores import Counts
from peft_study.run_config import AdapterHSettings, FullFtSettings, LoraSettings, Settings

RANKS = (1, 2, 3, 4, 8, 16, 64)
BOTTLENECKS = (3, 8, 16, 64)
SUBSETS = [subset for n in range(1, 5) for subset in combinations(WEIGHTS, n)]

# The published models by their configurations, with a head of two classes.
MODELS = {
    name: transformers.AutoConfig.for_model(**config)
    for name, config in read_json(Path(__file__).with_name("published_models.json")).items()
}


def settings_counted() -> Iterator[tuple[str, Recipe, Settings]]:
    """Yield every setting of which parameters are counted: its name, what it is, and itself."""
    for targets, r in (*((QUERY_VALUE, r) for r in RANKS), *((s, 8) for s in SUBSETS)):
        name = f"lora r={r} {'+'.join(targets)}"
        yield name, Recipe(OURS, r, targets), LoraSettings(r, ALPHA, 0.0, targets)
    for units in BOTTLENECKS:
        name = f"adapter_h bottleneck={units}"
        yield name, Recipe("adapter_h", bottleneck=units), AdapterHSettings(units, "gelu")
    yield "full_ft", Recipe("full_ft"), FullFtSettings()


def counts(config: PretrainedConfig) -> Iterator[tuple[str, Counts]]:
    """Yield, for each setting, the counts on which all implementations and closed forms agree.

    Closed forms, for width d and L layers: LoRA L * |targets| * 2 d r (Hu et al. 2021, section
    4.2), AdapterH L * 2 * (2 d m + m + d) for bottleneck m (Houlsby et al. 2019, section 2.1,
    without the LayerNorms, which the `adapters` library leaves frozen).

    Raises StudyError: an implementation counts otherwise.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    with torch.device("meta"):  # shapes, no memory
        plain = transformers.AutoModelForSequenceClassification.from_config(config)
    for name, recipe, settings in settings_counted():
        methods = [recipe.method or OURS]
        if isinstance(settings, LoraSettings):
            methods += OTHERS
            expected = layers * len(settings.targets) * 2 * width * settings.r
        elif isinstance(settings, AdapterHSettings):
            units = settings.bottleneck
            expected = layers * 2 * (2 * width * units + units + width)
        else:
            expected = encoder_parameters(config)
        found = {method: _count(plain, method, settings) for method in methods}
        first = found[methods[0]]
        if first["adapter"] != expected or any(count != first for count in found.values()):
            where = f"{config.model_type} {name}"
            raise StudyError(f"parity broken: {where}: {found}, closed form {expected}")
        yield name, Counts(**first)


def encoder_parameters(config: PretrainedConfig) -> int:
    """Return how many parameters an encoder has by its configuration, without heads.

    A pooler counts where pre-training provides it. DeBERTa-v2 has no absolute positions; instead
    one table of relative positions with its LayerNorm, whose projections are the queries' and
    keys' own, and one convolution.
    """
    d, f, names = config.hidden_size, config.intermediate_size, architecture(config.model_type)
    attention, feed_forward, layer_norm = 4 * (d * d + d), 2 * d * f + f + d, 2 * d
    total = config.num_hidden_layers * (attention + feed_forward + 2 * layer_norm)
    total += config.vocab_size * d + layer_norm
    if getattr(config, "relative_attention", False):
        total += 2 * config.position_buckets * d + layer_norm
    else:
        total += (config.max_position_embeddings + config.type_vocab_size) * d
    if kernel := getattr(config, "conv_kernel_size", 0):
        total += kernel * d * d + d + layer_norm
    if names.pooler and names.pooler.startswith(f"{names.base}."):
        total += d * d + d
    return total


def _count(plain: PreTrainedModel, name: str, settings: Settings) -> dict[str, int]:
    method = load_method(METHODS[name].module)
    with torch.device("meta"):
        model = method.adapt(copy.deepcopy(plain), settings, seed=0)
    set_head(model, "trained")
    return count_trainable(model, method)
