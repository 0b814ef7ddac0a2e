"""Deciding, before anything is augmented, which pairs are train, val and test."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tfprune.data.faults import Finding
from tfprune.data.folders import SPLITS, WHOLE, Pair, first_group, spelt
from tfprune.errors import InputError, unknown_name

Splits = dict[str, tuple[Pair, ...]]


def read_split_file(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Return the stems per split of a JSON file such as {"train": ["a", "b"], "test": ["c"]}.

    Entries that are not lists (notes) are passed over.

    Raises:
        InputError: the file is missing, is not such JSON, names another split or has no train.
    """
    path = Path(path)
    form = 'a split file is JSON such as {"train": ["stem", ...], "val": [...], "test": [...]}'
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such split file; its path is relative to the data folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {form}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: {form}")
    lists = {key: value for key, value in content.items() if isinstance(value, list)}
    for key, stems in lists.items():
        if key not in SPLITS:
            raise unknown_name("split", key, SPLITS, str(path))
        if not all(isinstance(stem, str) for stem in stems):
            raise InputError(f"{path}: '{key}' must be a list of texts (file names without suffix)")
    if not lists.get("train"):
        raise InputError(f"{path}: lists nothing under 'train'; {form}")
    return {key: tuple(map(spelt, stems)) for key, stems in lists.items()}


def make_splits(
    parts: Mapping[str, Sequence[Pair]],
    *,
    listed: Mapping[str, Sequence[str]] | None = None,
    group_pattern: str | None = None,
    val_share: float = 0.15,
    test_share: float = 0.2,
    seed: int = 0,
) -> tuple[Splits, list[Finding]]:
    """Return the pairs of train, val and test, and what is wrong with the given ones.

    Given splits (the folder's own, or the stems `listed` for each) are kept. A missing test part is cut from
    train first (`test_share` of it), then a missing val part (`val_share` of what is left). Whole groups
    are cut, chosen by `seed`; the order of the files on disk has no influence.

    Raises:
        InputError: a share or the pattern is not usable, or the pattern does not match a stem.
    """
    for name, share in (("val_share", val_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise InputError(f"{name} is a share from 0 up to, not including, 1; not {share}")
    group_of = first_group("group_pattern", group_pattern)
    findings: list[Finding] = []
    if listed is not None:
        splits = _pick_listed(parts, listed, findings)
    else:
        splits = {("train" if part == WHOLE else part): tuple(pairs) for part, pairs in parts.items()}
    if group_pattern is not None:
        _find_straddling(splits, group_of, findings)
    for number, (name, share) in enumerate((("test", test_share), ("val", val_share))):
        if name not in splits:
            rng = np.random.default_rng((seed, number))
            splits["train"], splits[name] = _cut(splits["train"], share, group_of=group_of, rng=rng)
            if share and not splits[name]:
                message = f"no {name} part can be cut from train, it has fewer than two groups; add data or give {name}"
                findings.append(Finding("too_few_groups", (), message))
        elif not splits[name]:
            message = f"no usable pair lies in {name}; add some, or take the empty part away: it is cut from train then"
            findings.append(Finding("empty_split", (), message))
    if not splits["train"]:
        findings.append(Finding("empty_split", (), "no usable pair is left in train"))
    return {name: splits[name] for name in SPLITS}, findings


def _pick_listed(
    parts: Mapping[str, Sequence[Pair]], listed: Mapping[str, Sequence[str]], findings: list[Finding]
) -> Splits:
    by_stem: dict[str, list[Pair]] = defaultdict(list)
    for pairs in parts.values():
        for pair in pairs:
            by_stem[pair.stem].append(pair)
    taken: dict[str, str] = {}
    splits: Splits = {}
    for name, stems in listed.items():
        chosen = []
        for stem in stems:
            if stem in taken:
                findings.append(Finding("listed_twice", (stem,), f"is listed in {taken[stem]} and again in {name}"))
            elif len(by_stem[stem]) > 1:
                findings.append(Finding("duplicate_stem", (stem,), "is listed, and lies in more than one folder"))
            elif not by_stem[stem]:
                findings.append(Finding("listed_but_missing", (stem,), f"is listed in {name}, but there is no pair"))
            else:
                chosen.append(by_stem[stem][0])
            taken[stem] = name
        splits[name] = tuple(chosen)
    return splits


def _find_straddling(splits: Splits, group_of: Callable[[str], str], findings: list[Finding]) -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for name, pairs in splits.items():
        for pair in pairs:
            places[group_of(pair.stem)].add(name)
    for group, names in sorted(places.items()):
        if len(names) > 1:
            message = f"group '{group}' lies in more than one split: {', '.join(sorted(names))}"
            findings.append(Finding("group_across_splits", (), message))


def _cut(
    pairs: Sequence[Pair], share: float, *, group_of: Callable[[str], str], rng: np.random.Generator
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Return (rest, part): whole groups, in shuffled order, each taken when it brings the part nearer to its share."""
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[group_of(pair.stem)].append(pair)
    if share == 0 or len(groups) < 2:
        return tuple(pairs), ()
    names = sorted(groups)
    target = share * len(pairs)
    chosen: set[str] = set()
    count = 0
    for position in rng.permutation(len(names)):
        size = len(groups[names[position]])
        if abs(count + size - target) < abs(count - target) and len(chosen) < len(names) - 1:
            chosen.add(names[position])
            count += size
    if not chosen:
        chosen.add(min(names, key=lambda name: (len(groups[name]), name)))
    rest = tuple(pair for pair in pairs if group_of(pair.stem) not in chosen)
    return rest, tuple(pair for pair in pairs if group_of(pair.stem) in chosen)
