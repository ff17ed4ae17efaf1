"""Commands in the documents: their arguments are those of the command line."""

import argparse
import importlib
import re
import shlex

import pytest
from project import ROOT

from sspyr_mm.__main__ import COMMANDS

_VALUES = {"PORT": "0", "N": "1", "ROW": "0", "COL": "3", "TARGET": "timm"}


def documented_commands():
    """Yields the commands with arguments, without the brackets of optional ones."""
    for file in sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/**/*.md")}):
        text = re.sub(r"\\\n\s*", " ", file.read_text())
        for line in re.findall(r"python -m sspyr_mm ([^\n`]+)", text):
            words = shlex.split(re.sub(r"[][]", "", line), comments=True)
            words = words[: next((i for i, word in enumerate(words) if word in (">", "|", "&&")), None)]
            if words[0] in COMMANDS and words[1:] not in ([], ["..."]):
                yield pytest.param(words, id=f"{file.relative_to(ROOT)}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(documented_commands()))
def test_arguments_of_documented_commands_exist(words):
    command, *arguments = words
    parser = argparse.ArgumentParser(command)
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    parser.parse_args([_VALUES.get(word, word) for word in arguments])
