"""The budget language: what it accepts, what it says of the rest, and that it reads what it writes."""

from __future__ import annotations

import pytest

from tfprune.budget import QUANTITIES, Bound, parse_budget
from tfprune.errors import InputError


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("file_bytes<=500KiB", [Bound("file_bytes", 512_000)]),
        ("file_bytes<=1.5MiB", [Bound("file_bytes", 1_572_864)]),
        ("arena_bytes<=320kB", [Bound("arena_bytes", 320_000)]),
        ("activation_bytes<=4096", [Bound("activation_bytes", 4096)]),
        ("macs<=0.5x", [Bound("macs", 0.5, is_share=True)]),
        ("macs<=12M, parameters<=200k", [Bound("macs", 12e6), Bound("parameters", 2e5)]),
        ("latency_ms <= 50 , macs<=1.2G", [Bound("latency_ms", 50), Bound("macs", 1.2e9)]),
        ("latency_ms<=.25x", [Bound("latency_ms", 0.25, is_share=True)]),
    ],
)
def test_what_is_read(text, bounds):
    assert list(parse_budget(text)) == bounds


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("number", [1, 7, 999, 1000, 1024, 4096, 327_680, 123_456_789, 0.5, 2.5])
def test_what_is_written_is_read_again(quantity, number):
    bound = Bound(quantity, float(number))
    assert parse_budget(str(bound)) == (bound,)


def test_limits_of_shares_and_of_numbers():
    assert Bound("macs", 0.25, is_share=True).limit(80e6) == 20e6
    assert Bound("macs", 3e6).limit(80e6) == 3e6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"like \"file_bytes<=500KiB.*latency_ms"),
        ("flops<=1M", "unknown quantity 'flops'.*Accepted: macs, parameters"),
        ("mac<=1M", "did you mean 'macs'"),
        ("macs<1M", "'macs<1M' is not QUANTITY<=NUMBER"),
        ("macs<=-1", "is not QUANTITY<=NUMBER"),
        ("macs<=0", "leaves nothing"),
        ("macs<=2x", "at most 1x"),
        ("macs<=5KiB", "macs has no unit 'KiB'; accepted: none, k, M, G, x"),
        ("file_bytes<=5KB", "no unit 'KB'; accepted: none, B, kB, MB, KiB, MiB, x"),
        ("macs<=1M, macs<=0.5x", "two bounds on macs"),
        ("macs<=1M;", "is not QUANTITY<=NUMBER"),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(InputError, match=said):
        parse_budget(text)
