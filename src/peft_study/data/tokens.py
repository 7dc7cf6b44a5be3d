"""What a tokeniser makes of rows, and what it cannot tell apart."""

from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from peft_study.data.sources import Row
from peft_study.data.texts import shown
from peft_study.encoders.layout import complete
from peft_study.encoders.pretrained import model_config, model_folder
from peft_study.errors import StudyError, first_line
from peft_study.run_config import Encoder
from peft_study.stage_configs import PrepareConfig

MOST_SHARED = 0.1  # the share of the held-out rows that training rows may repeat before it fails
MOST_UNKNOWN = 0.5  # the share of a split's rows of which the tokeniser may know no sign


def load_tokenizer(model: str, revision: str | None) -> Any:
    """Load a tokeniser; raise StudyError for damaged files, or such as need a missing package."""
    from transformers import AutoTokenizer  # heavy, and not needed to check what is prepared

    folder = model_folder(model, revision)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # The libraries below raise errors of many kinds for a damaged file.
    except Exception as error:
        raise StudyError(
            f"model.name is '{model}': no tokeniser in {folder}: {first_line(error)}"
        ) from None


def tokenise(rows: list[Row], tokenizer: Any, max_length: int) -> pa.Table:
    """Tokenise rows once and for all, without padding; texts are cut to `max_length` tokens.

    The table is built column by column from the same list, so a label cannot leave its text.
    """
    texts = map(list, zip(*(row.texts for row in rows), strict=True))
    encoded = tokenizer(*texts, truncation=True, max_length=max_length)
    columns = {"id": [row.id for row in rows]}
    for name in ("input_ids", "token_type_ids"):
        if name in encoded:
            columns[name] = pa.array(encoded[name], pa.list_(pa.int32()))
    return pa.table(columns | {"label": [row.label for row in rows]})


def as_read(table: pa.Table, encoder: Encoder) -> pa.Table:
    """Return tokens as `encoder` reads them: without their types where it tells none apart.

    Raises StudyError if it has no embedding of a token or of a type, or reads no token of a text.
    """
    if empty := pc.sum(pc.equal(pc.list_value_length(table["input_ids"]), 0)).as_py():
        raise StudyError(
            f"model.name is '{encoder.name}': its tokeniser gives no token for {empty} texts, not "
            "even one that begins each; a tokeniser of transformers has such"
        )
    shape = complete(model_config(encoder.name, encoder.revision))
    if shape.get("type_vocab_size", 2) < 2 and "token_type_ids" in table.column_names:
        table = table.drop_columns("token_type_ids")
    for name, what, size in (
        ("input_ids", "token", "vocab_size"),
        ("token_type_ids", "token type", "type_vocab_size"),
    ):
        if name not in table.column_names or size not in shape:
            continue
        highest = pc.max(pc.list_flatten(table[name])).as_py() or 0
        if highest >= shape[size]:
            raise StudyError(
                f"model.name is '{encoder.name}': its tokeniser gives {what} {highest}, its "
                f"weights have {shape[size]}: the tokeniser is another model's"
            )
    return table


def unknown(table: pa.Table, tokenizer: Any) -> NDArray[np.bool_]:
    """Say of which rows the tokeniser knows no sign: all their tokens are special ones."""
    ids = table["input_ids"].combine_chunks()
    special = pa.array(tokenizer.all_special_ids, pa.int32())
    known = pc.invert(pc.is_in(pc.list_flatten(ids), value_set=special))
    return np.bincount(pc.list_parent_indices(ids), weights=known, minlength=len(table)) == 0


def leaks(
    config: PrepareConfig,
    sides: tuple[list[Row], list[Row]],
    tables: tuple[pa.Table, pa.Table],
    tokenizer: Any,
) -> list[bool]:
    """Say which training rows read as one that is held out, as different texts may.

    `sides` and `tables` are the training rows, and those held out, as texts and as tokens.

    Raises StudyError, with the reason, if that concerns many rows that are held out, or if the
    tokeniser knows no sign of most rows.
    """
    train, held_out = (list(map(tuple, table["input_ids"].to_pylist())) for table in tables)
    trained, seen = set(train), set(held_out)
    shared = np.array([ids in trained for ids in held_out])
    cut = np.array([len(ids) >= config.max_length for ids in held_out])
    blank = [unknown(table, tokenizer) for table in tables]
    many, model = shared.sum() > MOST_SHARED * len(held_out), f"model.name '{config.encoder.name}'"
    blanks, cuts = (shared & blank[1]).sum(), (shared & cut).sum()
    if max(rows.mean() for rows in blank) > MOST_UNKNOWN or (many and blanks and blanks >= cuts):
        example = next(compress([*sides[0], *sides[1]], np.concatenate(blank))).texts[0]
        raise StudyError(
            f"{config.key}: {blank[0].sum()} training and {blank[1].sum()} held-out rows hold only "
            f"signs that the tokeniser of {model} does not know, such as {shown(example)}; take a "
            "model that knows them"
        )
    if many:
        reason = f"to the tokeniser of {model}, which does not tell their signs apart"
        if cuts:
            reason = f"once they are cut to {config.max_length} tokens; raise max_length"
        raise StudyError(
            f"{config.key}: {shared.sum()} of the {len(held_out)} rows held out read as a training "
            f"row {reason}"
        )
    return [ids in seen for ids in train]
