"""A file against a target: every operator that does not map, why, and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfprune.errors import InputError, look_up
from tfprune.targets import TARGETS, Target
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
    """

    target: str
    operators: tuple[str, ...]
    findings: tuple[Finding, ...]
    unmapped: frozenset[int]

    @property
    def falls_back(self) -> bool:
        """Whether anything leaves the accelerator."""
        return any(found.falls_back for found in self.findings)


def lint_file(path: str | Path, target: str) -> Verdict:
    """Return what a target makes of a .tflite file.

    Raises:
        InputError: the target is unknown, the file damaged, or ai-edge-litert not installed.
    """
    chosen = look_up("target", target, TARGETS)
    operators = read_operators(path)
    if operators is None:
        raise InputError("lint reads the file's operators with ai-edge-litert, which is not installed")
    asked = tuple(chosen.asks(Path(path))) if chosen.asks else ()
    return lint_operators(operators, chosen, name=target, asked=asked)


def lint_operators(
    operators: Sequence[Operator], target: Target, *, name: str = "", asked: Sequence[Finding] = ()
) -> Verdict:
    """Return what a target's rules make of operators; `asked` are findings of the target's own tool."""
    findings = dict.fromkeys(found for rule in target.rules for found in rule(operators))
    known = {found.place for found in findings if found.falls_back}
    findings.update(dict.fromkeys(found for found in asked if found.place not in known))
    ordered = sorted(findings, key=lambda found: -1 if found.place is None else found.place)
    places = [found.place for found in ordered if found.falls_back]
    unmapped = set(range(len(operators))) if None in places else {place for place in places if place is not None}
    if target.breaks_off and unmapped:
        unmapped = set(range(min(unmapped), len(operators)))
    return Verdict(name, tuple(operator.name for operator in operators), tuple(ordered), frozenset(unmapped))


def gathered(findings: Sequence[Finding]) -> list[tuple[Finding, list[int | None]]]:
    """Return findings that say the same of the same kind of operator as one, each with its places."""
    groups: dict[Finding, list[int | None]] = {}
    first: dict[tuple[str, str, str, bool], Finding] = {}
    for found in findings:
        same = first.setdefault((found.operator, found.reason, found.way_out, found.falls_back), found)
        groups.setdefault(same, []).append(found.place)
    return list(groups.items())
