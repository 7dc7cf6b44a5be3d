"""PEFT's types of tuners: which of them a study may declare, and what is known of each.

It imports neither PEFT nor PyTorch. What the table says of merging and of the start was found by
trying, at each type's defaults; the certificate of a study finds it again for its own settings.
"""

from peft_study.errors import nearest
from peft_study.records import Record
from peft_study.run_config import drawn_from


class PeftType(Record):
    """A type of tuner.

    Attributes:
        paper: who describes it, as PEFT says.
        family: what it changes; families share a colour in figures.
        merges: whether PEFT merges it into the weights, and takes it out again.
        identity: whether it starts as the encoder, up to rounding.
        needs: what its configuration must respect.
    """

    paper: str
    family: str
    merges: bool = True
    identity: bool = True
    needs: str = ""


_WIDTHS = "divides the widths of what is adapted"
PEFT_TYPES: dict[str, PeftType] = {
    "ADALORA": PeftType(
        "Zhang et al. 2023, arXiv:2303.10512", "lora", needs="tinit + tfinal below a run's steps"
    ),
    "ADAMSS": PeftType("AdaMSS, as PEFT implements it", "lora"),
    "BEFT": PeftType("arXiv:2509.15974", "selective"),
    "BOFT": PeftType(
        "Liu et al. 2024, arXiv:2311.06243", "orthogonal", needs=f"boft_block_size {_WIDTHS}"
    ),
    "C3A": PeftType(
        *("Chen et al. 2025, arXiv:2407.19342", "spectral"),
        identity=False,
        needs=f"block_size {_WIDTHS}; the default, 256, does not divide 384",
    ),
    "DEFT": PeftType("DEFT, as PEFT implements it", "lora"),
    "DELORA": PeftType("Bini et al. 2025, arXiv:2503.18225", "lora"),
    "FOURIERFT": PeftType("Gao et al. 2024, arXiv:2405.03003", "spectral", identity=False),
    "FROD": PeftType("doi:10.1609/aaai.v40i31.39813", "lora"),
    "GLORA": PeftType("GLoRA, as PEFT implements it", "lora"),
    "GRALORA": PeftType(
        "Jung et al. 2025, arXiv:2505.20355", "lora", needs="gralora_k divides r and the widths"
    ),
    "HIRA": PeftType("Huang et al. 2025, openreview.net TwJrTz9cRS", "lora"),
    "HRA": PeftType("Yuan et al. 2024, arXiv:2405.17484", "orthogonal", needs="an even r"),
    "IA3": PeftType(
        "Liu et al. 2022, arXiv:2205.05638", "scaling", needs="feedforward_modules, or []"
    ),
    "LN_TUNING": PeftType(
        "Zhao et al. 2024, arXiv:2312.11420", "selective", needs="LayerNorms as target_modules"
    ),
    "LOHA": PeftType("Hyeon-Woo et al. 2022, arXiv:2108.06098", "lora"),
    "LOKR": PeftType("Yeh et al. 2024, arXiv:2309.14859", "lora"),
    "LORA": PeftType(
        "Hu et al. 2021, arXiv:2106.09685; with use_dora, Liu et al. 2024, arXiv:2402.09353; with "
        "use_rslora, Kalajdzievski 2023, arXiv:2312.03732; init_lora_weights pissa, Meng et al. "
        "2024, arXiv:2404.02948, or olora, Büyükakyüz 2024, arXiv:2406.01775",
        "lora",
    ),
    "MISS": PeftType("Kang and Yin 2024, arXiv:2409.15371", "lora"),
    "OFT": PeftType(
        *("Qiu et al. 2023, arXiv:2306.07280", "orthogonal"),
        needs="oft_block_size or r, the other 0",
    ),
    "OSF": PeftType("OSF, as PEFT implements it", "orthogonal", merges=False),
    "PEANUT": PeftType("arXiv:2410.01870", "lora"),
    "PSOFT": PeftType("openreview.net FSHrinMArK", "orthogonal"),
    "PVERA": PeftType("arXiv:2512.07703", "lora"),
    "RANDLORA": PeftType("Albert et al. 2025, arXiv:2502.00987", "lora"),
    "ROAD": PeftType("Liao and Monz 2024, arXiv:2409.00119", "orthogonal"),
    "SHIRA": PeftType("Bhardwaj et al. 2024, arXiv:2406.13175", "selective"),
    "SUPERTUNING": PeftType("arXiv:2607.09287", "selective"),
    "TINYLORA": PeftType("arXiv:2602.04118", "lora"),
    "UNILORA": PeftType("arXiv:2506.00799", "lora", identity=False),
    "VBLORA": PeftType(
        *("Li et al. 2024, arXiv:2405.15179", "lora"),
        identity=False,
        needs=f"vector_length {_WIDTHS}; the default, 256, does not divide 384",
    ),
    "VERA": PeftType("Kopiczko et al. 2024, arXiv:2310.11454", "lora"),
    "WAVEFT": PeftType("Bilican et al. 2025, arXiv:2505.12532", "spectral"),
}
_TOKENS = "it adds to the sequence, which the packed step does not lay out yet"
REFUSED: dict[str, str] = {
    "ADAPTION_PROMPT": "it is for the attention of decoders alone",
    "CARTRIDGE": _TOKENS,
    "CPT": _TOKENS,
    "LILY": "its router looks at all tokens of a batch, so that a text's score hangs on others",
    "MULTITASK_PROMPT_TUNING": _TOKENS,
    "POLY": "it needs several tasks at once",
    "PREFIX_TUNING": _TOKENS,
    "PROMPT_TUNING": _TOKENS,
    "P_TUNING": _TOKENS,
    "SHADOW": "it needs a second model beside the encoder",
    "TRAINABLE_TOKENS": "it trains new tokens of the vocabulary, of which texts have none",
    "XLORA": "it mixes adapters that must have been trained before",
}
# Keys that a study sets itself.
SET = {
    "auto_mapping": "is of no use here",
    "base_model_name_or_path": "is the study's model.name",
    "inference_mode": "is set by the study",
    "modules_to_save": "is the task's head, which train.head trains or freezes",
    "peft_version": "is that of requirements.lock",
    "revision": "is the study's model.revision",
    "task_type": "is classification or regression, as the task is",
    "total_step": "is the number of steps of each run",
}
# Keys of LoRA that need more than a configuration, and starts that do.
NEEDS = {
    **dict.fromkeys(("eva_config", "corda_config", "lora_ga_config"), "needs data to start from"),
    **dict.fromkeys(("loftq_config", "use_qalora", "qalora_group_size"), "needs a quantised model"),
    **dict.fromkeys(("megatron_config", "megatron_core"), "needs Megatron"),
    "alora_invocation_tokens": "needs a prompt in every text",
    "arrow_config": "needs adapters that were trained before",
    "layer_replication": "changes the encoder itself",
    "trainable_token_indices": "trains tokens of the vocabulary, not weights of a layer",
    "save_only_topk_weights": "saves what cannot be trained further",
}
STARTS = {
    **dict.fromkeys(
        ("eva", "corda", "lora_ga"),
        "needs data; must be true, false, gaussian, orthogonal, pissa or olora",
    ),
    "loftq": "needs a quantised model; must be true, false, gaussian, orthogonal, pissa or olora",
    "pissa_niter": "draws a start that a saved adapter does not hold; must be 'pissa'",
}


def problem(config: dict[str, object]) -> str | None:
    """Say what is wrong with a configuration of PEFT, as far as it is known without PEFT."""
    kind = config.get("peft_type")
    if kind is None:
        return "peft_type: is missing; add it"
    if kind not in PEFT_TYPES:
        if kind in REFUSED:
            return f"peft_type: got '{kind}', which cannot be declared: {REFUSED[str(kind)]}"
        return f"peft_type: got {kind!r}; {nearest(str(kind), PEFT_TYPES)}"
    for key in config:
        if key in SET:
            return f"{key}: {SET[key]}; take it out"
        if key in drawn_from(config):
            return f"{key}: follows the seed of each run; take it out"
        if key in NEEDS and config[key]:
            return f"{key}: {NEEDS[key]}; take it out"
    start = config.get("init_lora_weights")
    for name, why in STARTS.items():
        if isinstance(start, str) and start.startswith(name) and start != "pissa":
            return f"init_lora_weights: got '{start}', which {why}"
    return None
