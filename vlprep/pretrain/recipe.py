"""A recipe: everything that a pretraining run is, in one TOML file.

Sections are dataclasses, each beside what it configures: `[model]` is that of its `kind`, `[objectives.NAME]` that of
the objective. A key that the section does not have is an error that lists those that it has. Recipes of the published
systems lie in `pipelines/`; a run keeps its resolved recipe.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from vlprep.errors import SettingsError
from vlprep.pretrain.batching import BatchSettings
from vlprep.pretrain.models.kinds import find_kind
from vlprep.pretrain.models.single_stream import SingleStreamSettings
from vlprep.pretrain.objectives.catalogue import find_objective
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.settings import ModelSettings, ObjectiveSettings, OptimiserSettings, TrainSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    model: ModelSettings = field(default_factory=SingleStreamSettings)
    data: CorpusSettings = field(default_factory=CorpusSettings)
    batches: BatchSettings = field(default_factory=BatchSettings)
    objectives: Mapping[str, ObjectiveSettings] = field(default_factory=dict)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    train: TrainSettings = field(default_factory=TrainSettings)


def recipe_names() -> list[str]:
    """The recipes that are shipped."""
    return sorted(path.name.removesuffix(".toml") for path in _shipped().iterdir() if path.name.endswith(".toml"))


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or any by the path of its file."""
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise SettingsError(f"--recipe {name}: no such file")
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise SettingsError(f"--recipe {name}: not UTF-8 text; convert it with iconv") from error
    elif name in recipe_names():
        text = _shipped().joinpath(f"{name}.toml").read_text("utf-8")
    else:
        raise SettingsError(f"--recipe {name}: not one of {', '.join(recipe_names())}, nor a .toml file")
    try:
        return read_recipe(tomllib.loads(text), f"--recipe {name}")
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"--recipe {name}: {error}") from error


def with_settings(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """The recipe with `section.key=value` assignments (values as in TOML; a bare word is text)."""
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        path = name.split(".")
        if not equals or len(path) < 2:
            raise SettingsError(f"--set {assignment}: write section.key=value, such as optimiser.lr=1e-4")
        recipe = _assign(recipe, path, _value(text), assignment)
    return recipe


def with_objectives(recipe: Recipe, text: str) -> Recipe:
    """The recipe with the objectives of `mlm:2+itm:2+mrfr+mrc-kl`, keeping its settings of those that it has."""
    chosen: dict[str, ObjectiveSettings] = {}
    for term in text.split("+"):
        name, _, weight = term.strip().partition(":")
        try:
            share = float(weight or 1)
        except ValueError:
            share = 0.0
        if not name or share <= 0:
            raise SettingsError(f"--objective {text}: write names joined by +, each with an optional :weight above 0")
        if name in chosen:
            raise SettingsError(f"--objective {text}: {name} twice; give it a weight, {name}:2 for example")
        chosen[name] = replace(recipe.objectives.get(name) or find_objective(name).settings(), weight=share)
    return replace(recipe, objectives=chosen)


def read_recipe(table: Any, where: str) -> Recipe:
    """A recipe from nested tables, the inverse of `to_table`.

    Raises `SettingsError` for a kind of model, an objective or a setting that there is not, or a value of another type.
    """
    sections = dict(_section(table, where))
    model = _section(sections.pop("model", {}), f"{where}.model")
    objectives = _section(sections.pop("objectives", {}), f"{where}.objectives")
    kind = find_kind(str(model.get("kind", SingleStreamSettings().kind)))
    return replace(
        from_table(Recipe, sections, where),
        model=from_table(kind.settings, model, f"{where}.model"),
        objectives={
            name: from_table(find_objective(name).settings, chosen, f"{where}.objectives.{name}")
            for name, chosen in objectives.items()
        },
    )


def to_table(value: Any) -> Any:
    """A recipe, or any settings, as nested tables; `read_recipe` and `from_table` read them back."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_table(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_table(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value


def from_table(kind: type[T], table: Any, where: str) -> T:
    """Build a settings dataclass from a table.

    Raises `SettingsError` for a key that it does not have or a value of another type, naming both.
    """
    hints = get_type_hints(kind)
    if unknown := _section(table, where).keys() - hints.keys():
        raise SettingsError(f"{where}: no setting {', '.join(sorted(unknown))}; there are {', '.join(hints)}")
    return kind(**{key: _typed(hints[key], value, f"{where}.{key}") for key, value in table.items()})


def _section(table: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(table, Mapping):
        raise SettingsError(f"{where}: expected a section, found {table!r}")
    return table


def _typed(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_table(hint, value, where)  # type: ignore[arg-type]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise SettingsError(f"{where}: one of {', '.join(arguments)}, not {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise SettingsError(f"{where}: expected a list, not {value!r}")
        if arguments[-1] is Ellipsis:
            return tuple(_typed(arguments[0], entry, where) for entry in value)
        if len(value) != len(arguments):
            raise SettingsError(f"{where}: expected {len(arguments)} values, not {value!r}")
        return tuple(_typed(entry, one, where) for entry, one in zip(arguments, value, strict=True))
    if origin is not None:  # Mapping[str, X]
        return {key: _typed(arguments[1], entry, f"{where}.{key}") for key, entry in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise SettingsError(f"{where}: expected {hint.__name__}, not {value!r}")
    return value


def _assign(owner: Any, path: list[str], value: Any, assignment: str) -> Any:
    key, *rest = path
    if isinstance(owner, Mapping):
        if key not in owner:
            raise SettingsError(f"--set {assignment}: no {key} here; there are {', '.join(owner)}")
        return {**owner, key: _assign(owner[key], rest, value, assignment) if rest else value}
    hints = get_type_hints(type(owner)) if dataclasses.is_dataclass(owner) else {}
    if key not in hints:
        raise SettingsError(f"--set {assignment}: no setting {key}; there are {', '.join(hints)}")
    if rest:
        return replace(owner, **{key: _assign(getattr(owner, key), rest, value, assignment)})
    return replace(owner, **{key: _typed(hints[key], value, f"--set {assignment}")})


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _shipped() -> Any:
    """`pipelines/` of the checkout, which a wheel carries as `vlprep/_recipes`."""
    packaged = resources.files("vlprep").joinpath("_recipes")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "pipelines"
