"""What parameters ask of the model, of libraries and of the machine, checked before training."""

from peft_study.encoders.pretrained import longest_text, model_config
from peft_study.errors import StudyError
from peft_study.methods import load_method
from peft_study.run_config import AdaptersSettings, PeftSettings
from peft_study.study import Study


def check_against_model(study: Study) -> None:
    """Check the parameters that only the model's configuration can judge.

    Raises StudyError if the model is missing or of an unknown architecture, a rank or bottleneck
    exceeds its width, or texts may be longer than its position embeddings.
    """
    name, profile = study.model.name, study.profile
    model = model_config(name, study.model.revision)
    width, positions = model["hidden_size"], longest_text(model)
    lengths = {f"tasks.{name}": task.max_length for name, task in study.tasks.items()}
    lengths |= {"model": study.model.max_length, "mnli_init": study.mnli_init.max_length}
    for key, value, limit in (
        ("lora.r", study.lora.r, width),
        *((f"sweep.ranks: {rank}", rank, width) for rank in study.sweep.ranks),
        *((f"profile.ranks: {rank}", rank, width) for rank in profile.ranks if profile.rounds),
        ("profile.bottleneck", profile.bottleneck if profile.rounds else None, width),
        ("adapter_h.bottleneck", study.adapter_h.bottleneck, width),
        *((f"recipes.{key}.r", recipe.r, width) for key, recipe in study.recipes.items()),
        *((f"recipes.{k}.bottleneck", own.bottleneck, width) for k, own in study.recipes.items()),
        *((f"{key}.max_length", length, positions) for key, length in lengths.items()),
    ):
        if value and value > limit:
            allowed = f"at most {limit} for model.name '{name}'"
            raise StudyError(f"params.yaml: {key}: got {value}; must be {allowed}")


def check_recipes(study: Study) -> None:
    """Build every recipe that only a library can judge, on the encoder.

    Raises StudyError if the library does not know a key, refuses a value, or finds no module.
    """
    opened = {
        name: declared
        for name in study.recipes
        if isinstance((declared := study.method(name)).settings, (PeftSettings, AdaptersSettings))
    }
    if not opened:
        return
    from peft_study.encoders.backbone import load_model  # slow, and not needed otherwise

    for name, declared in opened.items():
        model = load_model(study.model.name, 2, 0, study.model.revision)
        try:
            load_method(declared.row.module).adapt(model, declared.settings, seed=0)
        except StudyError as error:
            raise StudyError(f"params.yaml: recipes.{name}.config: {error}") from None


def check_device(study: Study) -> None:
    """Raise StudyError if this machine lacks `train.device`, unless runs are trained on others."""
    device = study.train.device
    if device == "cpu" or study.runner.backend == "ray":
        return
    import torch  # slow, and not needed otherwise

    module = torch.cuda if device == "cuda" else torch.backends.mps
    if not module.is_available():
        raise StudyError(f"params.yaml: train.device: got '{device}', which PyTorch does not find")
