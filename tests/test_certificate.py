"""The certificate of a method: what it finds of sound ones, and that each line can fail."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from peft.tuners.lora.layer import Linear
from ruamel.yaml import YAML
from torch import Tensor, nn
from transformers import PreTrainedModel

from conftest import CONFIGS, LORA, ROOT, SETTINGS, small_model
from peft_study.certify import comparisons
from peft_study.certify.certificate import certificates
from peft_study.configure import configure
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.errors import StudyError
from peft_study.files import as_json
from peft_study.methods import KINDS, METHODS, adapters_words, lora, peft_tuner, saved
from peft_study.methods.adapters_words import Word
from peft_study.records.certificates import Certificate
from peft_study.run_config import (
    AdapterHSettings,
    AdaptersSettings,
    BitFitSettings,
    Encoder,
    FullFtSettings,
    PeftSettings,
    Settings,
)
from peft_study.stage_configs import CertifiedMethod, CertifyConfig, RunLength
from peft_study.study import check_study
from peft_study.training import loop

QUERY_VALUE = {"target_modules": ["query", "value"]}
MODULES: dict[type, str] = {
    AdapterHSettings: METHODS["adapter_h"].module,
    AdaptersSettings: KINDS["adapters"].module,
    BitFitSettings: KINDS["bitfit"].module,
    FullFtSettings: METHODS["full_ft"].module,
    PeftSettings: KINDS["peft"].module,
}
DORA = PeftSettings({"peft_type": "LORA", "r": 4, "use_dora": True} | QUERY_VALUE)
ADALORA = PeftSettings({"peft_type": "ADALORA", "init_r": 8, "target_r": 4} | QUERY_VALUE)
# Two layers of width 32, feed-forward layers of width 64: what a method then trains.
COUNTED: dict[str, tuple[Settings, int]] = {
    "adapter_h": (SETTINGS["adapter_h"], 2 * 2 * (2 * 32 * 4 + 4 + 32)),
    "full_ft": (FullFtSettings(), 997_088),
    "bitfit": (BitFitSettings(), 2 * (4 * 32 + 64 + 32 + 2 * 32) + 32 + 32),
    "dora": (DORA, 2 * 2 * (4 * (32 + 32) + 32)),
    "ia3": (
        PeftSettings(
            {
                "peft_type": "IA3",
                "target_modules": ["key", "intermediate.dense", "output.dense"],
                "feedforward_modules": ["output.dense"],
            }
        ),
        2 * (32 + 64 + 32 + 64),  # an output's or, of what is called `output.dense`, an input's
    ),
    "ln_tuning": (
        PeftSettings({"peft_type": "LN_TUNING", "target_modules": ["LayerNorm"]}),
        5 * 2 * 32,
    ),
    "vera": (PeftSettings({"peft_type": "VERA", "r": 16} | QUERY_VALUE), 2 * 2 * (16 + 32)),
    "adalora": (ADALORA, 2 * 2 * 8 * (32 + 32 + 1)),
    "seq_bn": (
        AdaptersSettings("seq_bn[reduction_factor=8]", leave_out=(0,)),
        2 * 32 * 4 + 4 + 32,
    ),
}


def encoder(folder: Path, model_type: str = "bert") -> Encoder:
    return Encoder(str(folder), None, None, ARCHITECTURES[model_type])


def certify(where: Encoder | Path, settings: Settings, module: str | None = None) -> Certificate:
    method = CertifiedMethod(module or MODULES.get(type(settings), "lora"), settings)
    at = where if isinstance(where, Encoder) else encoder(where)
    return certificates(CertifyConfig(at, {"mine": method}, {})).methods[0]


@pytest.mark.parametrize("name", COUNTED)
def test_what_a_sound_method_trains_is_what_its_configuration_says(
    name: str, model_path: Path
) -> None:
    settings, parameters = COUNTED[name]
    found = certify(model_path, settings)
    assert found.trainable.adapter == found.closed_form == parameters
    assert found.tensors > 0
    assert found.power >= comparisons.POWER
    assert max(found.packed, found.files, found.library_files or 0) <= 1e-5
    assert (found.start > 1e-5) == (name in ("seq_bn", "adapter_h"))
    assert (found.merging is None) == (name in ("adapter_h", "bitfit", "full_ft", "seq_bn"))
    assert (found.merging is None) == (found.unmerged is not None)
    library = {"full_ft": None, "bitfit": None, "adapter_h": "adapters", "seq_bn": "adapters"}
    assert found.library == library.get(name, "PEFT")


@pytest.mark.parametrize("module", ["lora", "peft_lora", "loralib_lora"])
def test_lora_in_every_implementation(module: str, model_path: Path) -> None:
    found = certify(model_path, LORA, module)
    assert found.trainable.adapter == found.closed_form == 2 * 2 * 4 * (32 + 32)
    assert (found.tensors, found.start) == (2 * 2 * 2, 0)
    assert found.frozen == len(small_model("bert").state_dict()) - 2  # all but the head's
    if module == "loralib_lora":
        assert found.unmerged == "its update does not merge"
    else:
        assert found.merging is not None
        assert max(found.merging.float32, found.merging.restored) <= 1e-5
        assert 0 < found.merging.bfloat16 < 0.1


@pytest.mark.parametrize("model_type", [name for name in CONFIGS if name != "bert"])
@pytest.mark.parametrize("settings", [FullFtSettings(), BitFitSettings(), LORA], ids=type)
def test_closed_forms_hold_on_every_architecture(
    settings: Settings, model_type: str, model_path: Path, tmp_path: Path
) -> None:
    small_model(model_type).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").symlink_to(model_path / "tokenizer.json")
    found = certify(encoder(tmp_path, model_type), settings)
    assert found.closed_form == found.trainable.adapter


def test_adaloras_ranks_fall_and_its_hooks_are_called(model_path: Path) -> None:
    found = certify(model_path, ADALORA)
    assert found.hooks == ("after_step", "begin", "penalty")
    assert found.ranks is not None
    assert found.ranks[1] < found.ranks[0] == 2 * 2 * 8


def test_what_has_its_own_forward_is_compared_with_each_row_alone(model_path: Path) -> None:
    found = certify(model_path, AdaptersSettings("loreft[tied_weights=True]"))
    assert found.own_forward
    assert found.packed <= 1e-5
    assert found.files == 0  # what it draws and does not train is saved, too


def test_without_a_closed_form_the_rest_is_certified(model_path: Path) -> None:
    assert (
        certify(model_path, PeftSettings({"peft_type": "LOHA"} | QUERY_VALUE)).closed_form is None
    )
    start = {"init_lora_weights": False}  # says itself that it starts elsewhere
    assert certify(model_path, PeftSettings({"peft_type": "LORA"} | start | QUERY_VALUE)).start > 0
    osf = certify(model_path, PeftSettings({"peft_type": "OSF"} | QUERY_VALUE))
    assert osf.unmerged == "its update does not merge"


def test_certificates_are_the_same_bytes_again(model_path: Path) -> None:
    methods = {name: CertifiedMethod("lora", LORA) for name in ("one", "two")}
    config = CertifyConfig(encoder(model_path), methods, {})
    found = certificates(config)
    assert [one.method for one in found.methods] == ["one", "two"]
    assert as_json(found) == as_json(certificates(config))
    one, two = found.methods
    assert replace(one, method="two") == two


def changed_layer(change: Callable[[lora.LoRALinear, Tensor, Tensor], Tensor]) -> Any:
    """Return a mistake: what our LoRA's layers return of x is changed, here or there."""

    def mistake(monkeypatch: pytest.MonkeyPatch) -> None:
        forward = lora.LoRALinear.forward
        monkeypatch.setattr(
            lora.LoRALinear, "forward", lambda layer, x: change(layer, x, forward(layer, x))
        )

    return mistake


def changed_model(change: Callable[[PreTrainedModel], object]) -> Any:
    """Return a mistake: what our LoRA makes of a model is changed."""

    def mistake(monkeypatch: pytest.MonkeyPatch) -> None:
        adapt = lora.adapt

        def adapted(*arguments: Any, **options: Any) -> PreTrainedModel:
            change(found := adapt(*arguments, **options))
            return found

        monkeypatch.setattr(lora, "adapt", adapted)

    return mistake


def replaced(owner: object, name: str, value: Any) -> Any:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, value)


def last(model: PreTrainedModel) -> nn.Parameter:
    return list(lora.adapter_state(model).values())[-1]


def in_training(layer: lora.LoRALinear, x: Tensor, h: Tensor) -> Tensor:
    if layer.training:
        layer.weight.data.add_(1e-6)
    return h


def drawn_anew() -> Callable[[dict[str, nn.Parameter], int, Any], None]:
    draws, initialise = count(), lora.initialise
    return lambda state, seed, std: initialise(state, next(draws), std)


def by_another_alpha(model: PreTrainedModel, settings: Any) -> dict[str, object]:
    return saved.adapter_config(model, settings) | {"lora_alpha": 16.0}


def merges_twice(layer: lora.LoRALinear) -> None:
    layer.weight.data.add_(2 * layer.scaling * (layer.lora_B @ layer.lora_A).detach())
    layer.merged = True


def leaves_magnitudes(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    named = model.named_parameters()
    trained = [p for name, p in named if p.requires_grad and "magnitude" not in name]
    return [{"params": trained, "weight_decay": weight_decay}]


MISTAKES: dict[str, tuple[Any, Settings, str]] = {
    "no target": (
        replaced(lora, "projections", lambda model, names: {}),
        LORA,
        "parameters: the adapter has none to train; name targets that exist",
    ),
    "another count": (
        changed_model(lambda model: last(model).requires_grad_(False)),
        LORA,
        "parameters: 896 are trained, but the closed form says 1,024; ",
    ),
    "trained and not saved": (
        changed_model(lambda model: model.get_submodule("bert.embeddings").requires_grad_(True)),
        LORA,
        r"parameters: \d+ parameters train, but adapter 1024 \+ head 66; what is trained must be",
    ),
    "another start": (
        changed_model(lambda model: last(model).data.fill_(0.1)),
        LORA,
        r"start: logits differ from the encoder's by .*, though it starts as the encoder; ",
    ),
    "no gradient": (
        changed_layer(lambda layer, x, h: h.detach() if layer.lora_B.any() else h),
        LORA,
        r"gradients: '.*lora_A\.weight' has none within 3 steps \(nor have 3 others\); it needs a ",
    ),
    "a DoRA whose magnitude never moves": (
        replaced(loop, "parameter_groups", leaves_magnitudes),
        DORA,
        r"gradients: '.*lora_magnitude_vector' has one but does not move in 3 steps; ",
    ),
    "what is never used": (
        lambda monkeypatch: None,
        AdaptersSettings("loreft"),
        r"gradients: '.*' has none within 3 steps .*; it needs tied_weights=True unless ",
    ),
    "a frozen weight that moves": (
        changed_layer(in_training),
        LORA,
        r"frozen weights: 'bert\.encoder\..*\.weight' has changed in 3 steps; ",
    ),
    "hooks that are not called": (
        replaced(loop, "training_hooks", lambda model: None),
        ADALORA,
        "hooks: 'begin' was called 0 times in 3 steps, not 1; ",
    ),
    "an AdaLoRA without hooks": (
        replaced(peft_tuner, "AdaLora", lambda model: None),
        ADALORA,
        "hooks: 'begin' was called 0 times in 3 steps, not 1; ",
    ),
    "an AdaLoRA that never reallocates": (
        replaced(peft_tuner.AdaLora, "after_step", lambda self, step: None),
        ADALORA,
        "hooks: AdaLoRA has 32 of 32 ranks after 3 steps, so that it reallocates none; ",
    ),
    "other draws from one seed": (
        replaced(lora, "initialise", drawn_anew()),
        LORA,
        r"repeated: '.*lora_A\.weight' differs between two runs of seed 0; ",
    ),
    "no effect": (
        changed_layer(lambda layer, x, h: h if layer.training else nn.Linear.forward(layer, x)),
        LORA,
        "power: noise on all trained tensors moves the logits by 0.0e.00 of the largest, ",
    ),
    "packed": (
        changed_layer(lambda layer, x, h: h * (1 + layer.lora_B.mean() * len(x))),
        LORA,
        "packed: packed and padded rows differ by .* of the largest logit; the packed step does ",
    ),
    "padding that matters": (
        lambda monkeypatch: monkeypatch.setitem(
            adapters_words.WORDS, "unipelt", Word("", packs=False, identity=False)
        ),
        AdaptersSettings("unipelt"),
        "packed: padded rows and each alone differ by .* of the largest logit; a text's score ",
    ),
    "files": (
        replaced(comparisons.saved, "load_adapter", lambda *arguments: None),
        LORA,
        "files: saved and loaded differ by .* of the largest logit; ",
    ),
    "files in its library": (
        replaced(lora, "adapter_config", by_another_alpha),
        LORA,
        "files: saved and loaded by PEFT differ by .* of the largest logit; PEFT reads ",
    ),
    "merging": (
        replaced(lora.LoRALinear, "merge", merges_twice),
        LORA,
        "merging: merged and unmerged differ by .* of the largest logit; ",
    ),
    "unmerging": (
        replaced(Linear, "unmerge", lambda layer: layer.merged_adapters.clear()),
        DORA,
        "merging: unmerged again and before differ by .* of the largest logit; ",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_stops_the_study_in_one_line(
    name: str, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake, settings, message = MISTAKES[name]
    mistake(monkeypatch)
    with pytest.raises(StudyError, match=f"^certificate of mine: {message}.*$"):
        certify(model_path, settings)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"target_r": 8}, "target_r 8 is not below init_r 8, so that nothing is reallocated"),
        ({"tinit": 10, "tfinal": 6}, "tinit 10 and tfinal 6 leave none of 16 steps for"),
        ({"deltaT": 16}, "no step after tinit 0 and before 16 is a multiple of deltaT 16"),
        ({"tinit": 8, "deltaT": 9}, None),  # at step 9
        ({"deltaT": 0}, "deltaT: got 0; must be at least 1"),
    ],
)
def test_an_adalora_that_would_reallocate_nothing_in_the_studys_runs(
    config: dict[str, int], message: str | None, model_path: Path, learnable: Path
) -> None:
    """The runs are those of the study, whatever the certificate's few steps do."""
    settings = replace(ADALORA, config=ADALORA.config | config)
    lengths = (RunLength(str(learnable), epochs=2, batch_size=8),)  # 2 times 8 steps
    method = CertifiedMethod("peft_tuner", settings, lengths)
    at = CertifyConfig(encoder(model_path), {"mine": method}, {})
    if message is None:
        assert certificates(at).methods[0].ranks
        return
    with pytest.raises(StudyError, match=f"^certificate of mine: hooks: .*: AdaLoRA: {message}"):
        certificates(at)


def test_what_is_certified_is_every_method_with_what_decides_it(params: dict[str, Any]) -> None:
    params["recipes"] = {
        "mine": {"like": "peft", "learning_rate": 1e-3, "config": ADALORA.config},
        "bit": {"like": "bitfit", "learning_rate": 1e-3},
    }
    params["methods"] += ["mine", "bit"]

    def certified() -> CertifyConfig:
        found = configure(check_study(params))["certify"]
        assert isinstance(found, CertifyConfig)
        return found

    before = certified()
    assert list(before.methods) == params["methods"]
    assert before.methods["lora"] == CertifiedMethod(
        "lora", replace(LORA, r=8, alpha=16.0, dropout=0.0)
    )
    places = [length.data for length in before.methods["mine"].lengths]
    assert places == [*(f"data/prepared/{task}" for task in params["tasks"]), "data/intermediate"]
    params["lora"]["learning_rate"] = params["recipes"]["mine"]["learning_rate"] = 5e-3
    params["train"]["warmup_ratio"] = 0.5
    assert certified() == before
    params["train"]["epochs"] = 7
    after = certified().methods
    assert [name for name in after if after[name] != before.methods[name]] == ["mine"]


def test_a_study_of_a_sweep_alone_has_nothing_to_certify(params: dict[str, Any]) -> None:
    params["methods"] = []
    params["sweep"] |= {"ranks": [1], "weights": ["query"]}
    config = configure(check_study(params))["certify"]
    assert isinstance(config, CertifyConfig)
    assert certificates(config).methods == ()


def test_nothing_is_trained_before_its_method_is_certified() -> None:
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
    (written,) = stages["certify"]["outs"]
    assert set(written) <= set(stages["mnli_init"]["deps"])
    assert any(dep.startswith(*stages["mnli_init"]["outs"]) for dep in stages["train"]["deps"])
    assert "src/peft_study/certify" in stages["certify"]["deps"]
