"""The README's Python is run as it stands, on a tiny set; its commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tfprune.cli import commands
from tfprune.data import generate_steel

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_runs(tmp_path, monkeypatch, capsys):
    generate_steel(tmp_path / "DIR", classes=2, counts={"train": 16, "val": 2, "test": 2}, size=(32, 32))
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    small = code.replace("(96, 96)", "(32, 32)").replace("width=16", "width=4").replace("epochs=25", "epochs=1")
    assert small != code
    monkeypatch.chdir(tmp_path)
    exec(compile(small, "README.md", "exec"), {})
    assert (tmp_path / "pruned.tflite").exists() and "file_bytes=" in capsys.readouterr().out


def commands_in_readme():
    return sorted(set(re.findall(r"^tfprune ([a-z]+(?: check(?= DIR))?)", README, re.M)))


@pytest.mark.parametrize("line", commands_in_readme())
def test_the_commands_exist(line):
    command = commands
    for word in line.split():
        command = command.get_command(click.Context(command), word)
        assert command is not None


def groups(command=commands, path="tfprune"):
    if isinstance(command, click.Group):
        yield path, command
        for name, part in command.commands.items():
            yield from groups(part, f"{path} {name}")


@pytest.mark.parametrize(("path", "group"), list(groups()))
def test_a_list_of_commands_says_each_in_a_whole_sentence_at_80_columns(path, group):
    text = group.get_help(click.Context(group, info_name=path, terminal_width=80))
    listed = text.partition("Commands:")[2].strip().splitlines()
    assert len(listed) == len(group.commands)
    assert [line for line in listed if line.endswith("...") and not line.endswith("losses, ...")] == []


def test_the_files_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links if "://" not in link)
