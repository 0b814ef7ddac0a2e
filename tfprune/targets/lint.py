"""A file against a target: every operator that does not map, why, and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfprune.errors import InputError
from tfprune.targets import Target, find_target
from tfprune.targets.rules import Finding
from tfprune.verification.graph import Operator, read_operators


@dataclass(frozen=True)
class Verdict:
    """What a target makes of a file.

    Attributes:
        target: the name of the target.
        operators: the names of the file's operators in order of execution.
        findings: in order of execution, those about the whole file first.
        unmapped: the places of the operators that do not run on the accelerator.
        guessed: whether the target has a compiler that decides, and it is not installed.
    """

    target: str
    operators: tuple[str, ...]
    findings: tuple[Finding, ...]
    unmapped: frozenset[int]
    guessed: bool = False

    @property
    def falls_back(self) -> bool:
        """Whether anything leaves the accelerator."""
        return any(found.falls_back for found in self.findings)


def lint_file(path: str | Path, target: str) -> Verdict:
    """Return what a target makes of a .tflite file.

    Raises:
        InputError: the target is unknown, the file damaged, or ai-edge-litert not installed.
    """
    chosen = find_target(target)
    operators = read_operators(path)
    if operators is None:
        raise InputError("lint reads the file's operators with ai-edge-litert, which is not installed")
    asked = chosen.asks(Path(path)) if chosen.asks else None
    return lint_operators(operators, chosen, name=target, asked=asked)


def lint_operators(
    operators: Sequence[Operator], target: Target, *, name: str = "", asked: Iterable[Finding] | None = None
) -> Verdict:
    """Return what a target's rules make of operators; `asked` are findings of its own tool, None without it."""
    decided, asked = target.decides and asked is not None, tuple(asked or ())
    findings = dict.fromkeys(found for rule in target.rules for found in rule(operators))
    if decided:
        left = {found.place for found in asked}
        findings = {found: None for found in findings if found.place in left}
    known = {found.place for found in findings if found.falls_back}
    findings.update(dict.fromkeys(found for found in asked if found.place not in known))
    ordered = sorted(findings, key=lambda found: -1 if found.place is None else found.place)
    places = [found.place for found in ordered if found.falls_back]
    unmapped = set(range(len(operators))) if None in places else {place for place in places if place is not None}
    if target.breaks_off and unmapped and not decided:
        unmapped = set(range(min(unmapped), len(operators)))
    return Verdict(
        name,
        tuple(operator.name for operator in operators),
        tuple(ordered),
        frozenset(unmapped),
        target.decides and not decided,
    )


def gathered(findings: Sequence[Finding]) -> list[tuple[Finding, list[int | None]]]:
    """Return findings that say the same of the same kind of operator as one, each with its places."""
    groups: dict[Finding, list[int | None]] = {}
    first: dict[tuple[str, str, str, bool], Finding] = {}
    for found in findings:
        same = first.setdefault((found.operator, found.reason, found.way_out, found.falls_back), found)
        groups.setdefault(same, []).append(found.place)
    return list(groups.items())
