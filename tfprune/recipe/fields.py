"""What the sections of a recipe are made of: a strict model, numbers in range, names of tables, budgets, targets."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from tfprune.budget import parse_budget
from tfprune.errors import InputError, unknown_name
from tfprune.targets import find_target


def one_of(kind: str, accepted: Collection[str]) -> Any:
    """Return the type of a name that must be in a table."""

    def check(given: str) -> str:
        if given not in accepted:
            raise PydanticCustomError("unknown_name", "{text}", {"text": str(unknown_name(kind, given, accepted))})
        return given

    return Annotated[str, AfterValidator(check), WithJsonSchema({"type": "string", "enum": list(accepted)})]


def _read_by(read: Callable[[str], Any]) -> Any:
    """Return the type of a text that a function must be able to read."""

    def check(given: str) -> str:
        try:
            read(given)
        except InputError as error:
            raise PydanticCustomError("unreadable", "{text}", {"text": str(error)}) from None
        return given

    return Annotated[str, AfterValidator(check)]


Budget = _read_by(parse_budget)
TargetName = _read_by(find_target)

Size = Annotated[list[Annotated[int, Field(ge=8, le=8192)]], Field(min_length=2, max_length=2)]
Share = Annotated[float, Field(gt=0, lt=1)]
Sparsity = Annotated[float, Field(ge=0, lt=1)]
Epochs = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A part of a recipe: frozen, without conversions, and without unknown keys or numbers without end."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
