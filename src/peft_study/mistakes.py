"""What pydantic finds wrong with parameters, in lines that a user can act upon."""

from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from peft_study.errors import nearest

REVISION, STUDY = "^[0-9a-f]{40}$", "^[a-z0-9][a-z0-9_-]*$"

# What is allowed, by the pattern of a text, or else by what pydantic calls the mistake.
RULES = {
    REVISION: "a commit: 40 hexadecimal digits",
    STUDY: "lower-case letters, digits, '-' and '_'",
    "too_short": "at least {min_length} item(s) long",
    "string_too_short": "not empty",
    "string_too_long": "at most {max_length} characters long",
    "model_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
}


def explain(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """Return a line for each wrong key of the parameters, whose model is `root`."""
    by_key: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for problem in error.errors():
        by_key.setdefault(_location(problem), []).append(problem)
    return [_explain(problems, root) for problems in by_key.values()]


def _explain(problems: list[ErrorDetails], root: type[BaseModel]) -> str:
    """Turn what pydantic found out about one key into `key: got value; must be what is allowed`."""
    first = problems[0]
    location = _location(first)
    key = ".".join(map(str, location))
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key; {nearest(str(location[-1]), _known_keys(location[:-1], root))}"
    if first["type"] == "missing":
        return f"{key}: is missing; add it"
    rules = dict.fromkeys(_rule(problem) for problem in problems)
    return f"{key}: got {first['input']!r}; must be {' or '.join(rules)}"


def _rule(problem: ErrorDetails) -> str:
    context = problem.get("ctx", {})
    rule = RULES.get(context.get("pattern", problem["type"]))
    return rule.format(**context) if rule else problem["msg"].removeprefix("Input should be ")


def _location(problem: ErrorDetails) -> tuple[int | str, ...]:
    # The branches of a union add their own names to the path; they are no keys of the file.
    branches = ("constrained-", "literal[", "[key]")
    return tuple(part for part in problem["loc"] if not str(part).startswith(branches))


def _known_keys(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    fields = root.model_fields
    for part in location:
        if part in fields:
            kind = fields[part].annotation
            kinds = (kind, *get_args(kind))
            fields = next((k.model_fields for k in kinds if hasattr(k, "model_fields")), {})
    return list(fields or root.model_fields)
