"""How many parameters a method trains, from its configuration and the encoder's shapes alone."""

import re
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from peft_study.encoders.architectures import architecture
from peft_study.encoders.backbone import head_modules, head_parameters, projections
from peft_study.parity.counts import encoder_parameters
from peft_study.run_config import (
    AdapterHSettings,
    AdaptersSettings,
    BitFitSettings,
    FullFtSettings,
    LoraSettings,
    PeftSettings,
    Settings,
)

# Keys of PEFT's that do not decide how many parameters there are, or that are read here.
_SAME = {"peft_type", "target_modules"}
_KNOWN = {
    "LORA": {"r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "init_lora_weights"},
    "ADALORA": {
        *("init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2"),
        *("orth_reg_weight", "lora_alpha", "lora_dropout"),
    },
    "IA3": {"feedforward_modules"},
    "LN_TUNING": set(),
    "VERA": {"r", "vera_dropout", "d_initial", "save_projection"},
}
_BOTTLENECKS = {"seq_bn": 1, "double_seq_bn": 2}  # in each layer
_BOTTLENECK = re.compile(r"(seq_bn|double_seq_bn)(?:\[reduction_factor=(\d+)\])?")


def closed_form(settings: Settings, plain: PreTrainedModel) -> int | None:
    """Return the number of parameters that an adapter of `settings` trains on a `plain` classifier.

    None where there is no closed form for all that the settings say. Sources: LoRA r (in + out) a
    target (Hu et al. 2021, section 4.2), DoRA `out` more (Liu et al. 2024, section 4.1), AdaLoRA
    r (in + out + 1) (Zhang et al. 2023, section 3.1), IA3 a scale for each output, or each input
    of a feed-forward layer (Liu et al. 2022, section 3.3), VeRA r + out (Kopiczko et al. 2024,
    section 3.2), bottlenecks 2 d m + m + d (Houlsby et al. 2019, section 2.1).
    """
    config: Any = plain.config
    width, layers = config.hidden_size, config.num_hidden_layers
    match settings:
        case LoraSettings():
            found = projections(plain, list(settings.targets)).values()
            return sum(settings.r * (m.in_features + m.out_features) for m in found)
        case AdapterHSettings(bottleneck=units):
            return layers * 2 * _bottleneck(width, units)
        case FullFtSettings():
            return encoder_parameters(config) - _drawn_pooler(plain)
        case BitFitSettings():
            return _biases(config) - (width if _drawn_pooler(plain) else 0)
        case AdaptersSettings():
            if not (words := _BOTTLENECK.fullmatch(settings.config)):
                return None
            units = width // int(words[2] or 16)
            adapted = layers - len(set(settings.leave_out))
            return adapted * _BOTTLENECKS[words[1]] * _bottleneck(width, units)
        case PeftSettings():
            return _peft(settings.config, plain)
    return None


def _peft(config: dict[str, Any], plain: PreTrainedModel) -> int | None:
    kind, targets = str(config["peft_type"]), _targets(config, plain)
    if targets is None or set(config) - _SAME - _KNOWN.get(kind, set()):
        return None
    if kind == "LN_TUNING":
        return sum(p.numel() for module in targets.values() for p in module.parameters())
    if not all(isinstance(module, nn.Linear) for module in targets.values()):
        return None
    sizes: list[tuple[int, int]] = [(m.in_features, m.out_features) for m in targets.values()]
    match kind:
        case "LORA":
            r, magnitudes = config.get("r", 8), bool(config.get("use_dora"))
            return sum(r * (inside + out) + magnitudes * out for inside, out in sizes)
        case "ADALORA":
            return sum(config.get("init_r", 12) * (inside + out + 1) for inside, out in sizes)
        case "IA3":
            inner = _matching(_names(config["feedforward_modules"], plain), targets)
            return sum(m.in_features if n in inner else m.out_features for n, m in targets.items())
        case "VERA":
            return sum(config.get("r", 256) + out for _, out in sizes)
    return None


def _targets(config: dict[str, Any], plain: PreTrainedModel) -> dict[str, Any] | None:
    """Return the modules that a configuration names; None where PEFT chooses them."""
    named = config.get("target_modules")
    heads = tuple(f"{module}." for module in head_modules(plain))
    modules = {n: m for n, m in plain.named_modules() if not f"{n}.".startswith(heads)}
    if named == "all-linear":
        return {name: m for name, m in modules.items() if isinstance(m, nn.Linear)}
    if isinstance(named, list) and (
        config["peft_type"] != "IA3" or "feedforward_modules" in config
    ):
        return _matching(_names(named, plain), modules)
    return None


def _names(named: list[str], plain: PreTrainedModel) -> list[str]:
    canonical = architecture(plain.config.model_type).projections
    return [canonical.get(name, name) for name in named]


def _matching(names: list[str], modules: dict[str, Any]) -> dict[str, Any]:
    endings = tuple(f".{name}" for name in names)
    return {name: module for name, module in modules.items() if f".{name}".endswith(endings)}


def _bottleneck(width: int, units: int) -> int:
    return 2 * width * units + units + width


def _drawn_pooler(plain: PreTrainedModel) -> int:
    """Return the parameters of a BERT's pooler that pre-training did not provide: the head's."""
    names = architecture(plain.config.model_type)
    if not names.pooler or not names.pooler.startswith(f"{names.base}."):
        return 0
    drawn = names.pooler in head_modules(plain)
    return sum(p.numel() for n, p in head_parameters(plain).items() if names.pooler in n) * drawn


def _biases(config: PretrainedConfig) -> int:
    """Return how many biases an encoder has, without heads; see `encoder_parameters`."""
    d, f, names = config.hidden_size, config.intermediate_size, architecture(config.model_type)
    attention, feed_forward, layer_norm = 4 * d, f + d, d
    total = config.num_hidden_layers * (attention + feed_forward + 2 * layer_norm) + layer_norm
    if getattr(config, "relative_attention", False):
        total += layer_norm
    if getattr(config, "conv_kernel_size", 0):
        total += d + layer_norm
    if names.pooler and names.pooler.startswith(f"{names.base}."):
        total += d
    return total
