"""Variants of a study: what they share with it, what they have apart, and mistakes in them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import refusal
from peft_study.configure import configure
from peft_study.files import write_json
from peft_study.grids import fit
from peft_study.records.variants import LedgerEntry
from peft_study.resolver import Resolver, encoder_of
from peft_study.run_config import LoraSettings
from peft_study.stage_configs import PrepareConfigs, TuneConfig, VariantsConfig
from peft_study.study import check_study
from peft_study.variants import differing, resolve_combinations, resolve_variants, together

Params = dict[str, Any]

ALPHA = {"lora.alpha": 8}
# settings of the ledger, or what `tune` says, and what the message must name
MISTAKES: list[tuple[Params, tuple[str, ...]]] = [
    (
        {"settings": {"alpha 8": {"lora.alhpa": 8}}},
        ("ledger.settings.alpha 8", "lora.alhpa: unknown key", "did you mean 'alpha'?"),
    ),
    ({"settings": {"negative": {"lora.alpha": -1}}}, ("settings.negative", "got -1", "greater")),
    ({"settings": {"wide": {"lora.r": 500}}}, ("settings.wide: lora.r", "got 500", "at most 384")),
    ({"settings": {"seed": {"seeds": [1]}}}, ("settings.seed.seeds", "cannot be a setting")),
    ({"settings": {"nothing": {}}}, ("settings.nothing", "got {}", "name keys")),
    ({"settings": {"same": {"lora.alpha": 16}}}, ("settings.same", "changes nothing")),
    (
        {"settings": {"of rte": {"tasks.rte.epochs": 2}}},
        ("settings.of rte.tasks.rte.epochs", "got 'rte'", "known:"),
    ),
    (
        {"settings": {"dora": {"recipes.dora.learning_rate": 1e-3}}},
        ("settings.dora", "recipes.dora.learning_rate", "got 'dora'"),
    ),
    (
        {"settings": {"rows": {"tasks.movie_polarity.validation_rows": 20}}},
        ("settings.rows", "movie_polarity", "held out", "validation_rows"),
    ),
    ({"settings": {"split": {"data.split_seed": 7}}}, ("settings.split", "held out", "split_seed")),
    ({"settings": {"deep": {"study.x": 1}}}, ("settings.deep.study.x", "cannot be a setting")),
    ({"settings": {"below": {"lora.alpha.x": 1}}}, ("settings.below", "lora.alpha", "no block")),
    ({"settings": {"block": {"lora": 5}}}, ("settings.block", "lora: got 5", "mapping")),
    ({"settings": {"model": {"model.name": "no/folder"}}}, ("settings.model", "no folder here")),
    ({"settings": {"long": {"model.max_length": 600}}}, ("settings.long", "got 600")),
    ({"settings": {"a b": ALPHA, "A-b": {"lora.r": 1}}}, ("settings.A-b", "'a b'", "rename one")),
    ({"settings": {"?!": ALPHA}}, ("settings.?!", "a letter or a digit")),
    ({"settings": {"": ALPHA}}, ("ledger.settings", "got ''", "not empty")),
    ({"settings": {"list": [8]}}, ("ledger.settings.list", "got [8]", "mapping")),
    ({"settings": {"a": ALPHA}, "methods": ["lroa"]}, ("ledger.methods", "did you mean 'lora'?")),
    ({"settings": {"a": ALPHA}, "tasks": ["rte"]}, ("ledger.tasks", "got 'rte'", "known:")),
    ({"settings": {"a": ALPHA}, "tasks": ["movie_polarity"] * 2}, ("ledger.tasks", "repeated")),
    ({"methods": ["lora"]}, ("ledger.settings", "got {}", "name what to change")),
    ({"setings": {"a": ALPHA}}, ("ledger.setings", "unknown key", "did you mean 'settings'?")),
    ({"tune": {"learning_rate": [2e-3, 2]}}, ("tune.learning_rate", "got 2", "less than or equal")),
    ({"tune": {"learning_rate": [1e-3, 1e-3]}}, ("tune.learning_rate", "0.001 is repeated")),
    ({"tune": {"learning_rate": [0, 1]}}, ("tune.learning_rate", "got 0", "above 0")),
    ({"tune": {"learning_rate": [1, 500]}}, ("tune.learning_rate", "500 times", "at most 1")),
    ({"tune": {"epochs": [0, 2]}}, ("tune.epochs", "got 0", "greater than or equal to 1")),
    ({"tune": {"rate": [1e-3]}}, ("tune.rate", "unknown key", "known:", "learning_rate")),
    ({"tune": {"epochs": [2], "seeds": [5, 6]}}, ("tune.seeds", "got 5", "seeds of their own")),
    ({"tune": {"epochs": [2], "seeds": []}}, ("tune.seeds", "got []", "at least 1 item")),
    ({"tune": {"epochs": [2], "rows": 1}}, ("tune.rows", "got 1", "less than 1")),
    ({"settings": {"a": ALPHA}, "tune": {"epochs": [2]}}, ("tune, ledger", "tune first")),
]


def ledger(params: Params, settings: Params, **rest: Any) -> Resolver:
    """Return the study with a ledger, to be resolved."""
    params["ledger"] = {"settings": settings} | rest
    study = check_study(params)
    return Resolver.of(study, encoder_of(study))


@pytest.mark.parametrize(("block", "named"), MISTAKES)
def test_a_mistake_is_one_line_that_names_the_setting(
    params: Params, block: Params, named: tuple[str, ...]
) -> None:
    params["tune"] = block.pop("tune", {}) if "tune" in block else {}
    params["ledger"] = block
    message = refusal(params)
    assert message.startswith("params.yaml: ")
    for part in named:
        assert part in message


def test_every_setting_alone_beside_the_study_as_it_stands(params: Params) -> None:
    settings = {"alpha 8": ALPHA, "two heads": {"train.head": "frozen"}}
    found, apart = resolve_variants(ledger(params, settings, methods=["lora", "full_ft"]))
    assert not apart
    entries = {(e.method, e.task, e.settings): e.place for e in found.ledger}
    assert len(entries) == 2 * 3 * 3
    # What a setting does not reach is said, and trained by nobody.
    assert entries["full_ft", "tweet_rating", ("alpha 8",)] is None
    place = entries["lora", "tweet_rating", ("alpha 8",)]
    assert place == "ledger/lora/tweet_rating/alone/alpha-8"
    study = found.cells["ledger/lora/tweet_rating/study"]
    (of, own) = (cell.config.run for cell in (found.cells[place], study))
    assert isinstance(own.settings, LoraSettings)
    assert of == replace(own, settings=replace(own.settings, alpha=8.0))
    assert study.config == configure(check_study(params))["train/lora"]["tweet_rating"]  # type: ignore[index]


def test_what_starts_or_rows_a_setting_changes_are_apart_and_the_rest_is_shared(
    params: Params,
) -> None:
    settings = {
        "from the encoder": {"mnli_init.mode": "none"},
        "short": {"model.max_length": 32},
        "alpha 8": ALPHA,
        "few": {"tasks.editorial_polarity.train_rows": 100},
    }
    resolver = ledger(params, settings, methods=["lora"], tasks=["editorial_polarity"])
    found, apart = resolve_variants(resolver)
    cells = {place.rpartition("/")[2]: cell for place, cell in found.cells.items()}
    assert cells["from-the-encoder"].start is None
    assert cells["from-the-encoder"].data == cells["study"].data == cells["alpha-8"].data
    assert cells["few"].start == cells["study"].start
    # Rank and length are the intermediate run's too; of the encoder alone, none.
    starts = {cells[name].start for name in ("study", "short", "alpha-8")}
    assert len(starts) == len(found.starts) == 3
    # The task twice, and the intermediate task in the shorter form.
    lengths = sorted((of.task, of.max_length) for of in apart.values())
    assert lengths == [
        *(("editorial_polarity", length) for length in (32, 64)),
        ("product_polarity", 32),
    ]
    assert {cells["few"].data, cells["short"].data} < set(apart)
    prepared = configure(check_study(params))["prepare"]
    assert isinstance(prepared, PrepareConfigs)
    assert prepared.apart == apart
    # So that DVC sees what decides the rows, whose folders are no dependencies.
    assert {cell.data for cell in found.cells.values()} < set(found.rows)


def test_which_evaluation_is_reported_trains_nothing(params: Params) -> None:
    found, _ = resolve_variants(ledger(params, {"last": {"train.report": "last"}}))
    last = found.cells["ledger/lora/tweet_rating/alone/last"]
    study = found.cells["ledger/lora/tweet_rating/study"]
    assert last.config == study.config
    assert (last.report, study.report) == ("last", "best")
    assert last.scored.run.train.report == "last"


def test_settings_of_one_key_do_not_fit_and_others_are_changed_at_once(params: Params) -> None:
    settings = {
        "alpha 8": ALPHA,
        "alpha 4": {"lora.alpha": 4},
        "short": {"model.max_length": 32},
        "few": {"tasks.tweet_rating.train_rows": 100},
        "block": {"lora": params["lora"] | {"r": 1}},
    }
    resolver = ledger(params, settings, methods=["lora"], tasks=["tweet_rating"])
    fits = together(resolver)
    assert not fits(("alpha 8", "alpha 4"))
    assert not fits(("alpha 8", "block"))
    assert fits(("alpha 8", "short", "few"))
    assert not fit([{"tasks.a": 1}, {"tasks.a.b": 2}])
    assert fit([{"tasks.a": 1}, {"tasks.ab": 2}])
    chosen = LedgerEntry("lora", "tweet_rating", "pair", ("alpha 8", "short"), None)
    also = LedgerEntry("lora", "tweet_rating", "together", ("alpha 8", "short", "few"), None)
    single, _ = resolve_variants(resolver)
    found, apart = resolve_combinations(resolver, single.rows, [chosen, also])
    assert [entry.place for entry in found.ledger] == [
        f"ledger/lora/tweet_rating/{kind}" for kind in ("pair", "together")
    ]
    pair, whole = found.cells.values()
    assert pair.config.run.settings.alpha == 8  # type: ignore[union-attr]
    # The shorter texts are prepared already; those of fewer rows as well are not.
    assert pair.data in resolve_variants(resolver)[1]
    assert list(apart) == [whole.data]
    assert whole.data.startswith("runs/variants/prepared/")


def test_a_setting_that_the_sweep_has_too_is_the_same_run(params: Params) -> None:
    params["sweep"] |= {"ranks": [1], "weights": ["query+value"]}
    resolver = ledger(params, {"r": {"lora.r": 1}}, tasks=["movie_polarity"], methods=["lora"])
    cells = resolve_variants(resolver)[0].cells
    one, other = cells["sweep/query+value-r1"], cells["ledger/lora/movie_polarity/alone/r"]
    assert one == other


def test_trials_are_the_same_for_all_and_have_rows_and_seeds_of_their_own(params: Params) -> None:
    params["tune"] = {"learning_rate": [0.25, 1, 4], "epochs": [1, 2]}
    found = configure(check_study(params))
    tune, prepared = found["tune"], found["prepare"]
    assert isinstance(tune, TuneConfig)
    assert isinstance(prepared, PrepareConfigs)
    rates = {
        m: sorted({t.values["learning_rate"] for t in tune.trials if t.cell.config.run.method == m})
        for m in tune.methods
    }
    assert rates["lora"] == [1e-3, 4e-3, 1.6e-2]
    assert rates["full_ft"] == [5e-5, 2e-4, 8e-4]
    assert len(tune.trials) == len(tune.methods) * 3 * 6
    assert {trial.cell.config.seeds for trial in tune.trials} == {(101, 102)}
    assert {trial.cell.data for trial in tune.trials} == set(tune.rows) == set(prepared.trials)
    assert all(
        trial.cell.config.run.train.epochs == trial.values["epochs"] for trial in tune.trials
    )
    # Only what starts from the intermediate task does, at its own rate.
    cells = [trial.cell for trial in tune.trials]
    assert {t.start is None for t in cells if t.config.run.task == "editorial_polarity"} == {False}
    assert {t.start is None for t in cells if t.config.run.task == "tweet_rating"} == {True}
    start = found["mnli_init"].cells["lora"]  # type: ignore[attr-defined]
    assert tune.starts["runs/trials/init/lora"].cell == start
    variants = found["variants"]
    assert isinstance(variants, VariantsConfig)
    assert set(variants.cells) == {
        f"untuned/{method}/{task}" for method in tune.methods for task in params["tasks"]
    }


def test_untuned_cells_are_left_out_where_the_study_has_them(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params["methods"], params["tune"] = ["lora"], {"learning_rate": [1, 2]}
    study = check_study(params)
    cells = resolve_variants(Resolver.of(study, encoder_of(study)))[0].cells
    monkeypatch.chdir(tmp_path)
    chosen = {"movie_polarity": {"learning_rate": 8e-3}, "tweet_rating": {"learning_rate": 4e-3}}
    write_json(tmp_path / "tuned/lora.json", chosen)
    assert set(differing(cells)) == {"untuned/lora/movie_polarity"}
