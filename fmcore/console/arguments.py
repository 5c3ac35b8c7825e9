"""Arguments of a command as people type them: flags anywhere between the settings, and ~ for the home folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

# Flags that stand alone; every other one is followed by its value.
ALONE = {"-h", "--help", "--resume", "--overwrite", "--pruned", "--explain"}


def ordered(arguments: Sequence[str]) -> list[str]:
    """The same arguments, flags and their values last: "--run-dir x steps=5" as "steps=5 --run-dir x".

    A parser takes the settings of a command in one piece, and would not know those that come after a flag. What follows
    "--" stays where it is.
    """
    words, flags = list[str](), list[str]()
    left = [at_home(argument) for argument in arguments]
    while left:
        word = left.pop(0)
        if word == "--":
            return [*words, *flags, word, *left]
        if not word.startswith("-") or is_number(word):
            words.append(word)
            continue
        flags.append(word)
        takes = word.startswith("--") and "=" not in word and word.replace("_", "-") not in ALONE
        if takes and left and (not left[0].startswith("-") or is_number(left[0])):
            flags.append(left.pop(0))
    return [*words, *flags]


def at_home(argument: str) -> str:
    """The argument with a leading ~ as the home folder, also after FLAG= or FIELD=, where shells leave it as it is."""
    front, tilde, rest = re.match(r"((?:-*\w[\w-]*=)?)(~?)(.*)", argument, re.S).groups()  # type: ignore[union-attr]
    if not tilde or (rest and not rest.startswith(("/", os.sep))):
        return argument
    return front + os.path.expanduser("~") + rest


def is_number(word: str) -> bool:
    """Whether it is a number, perhaps a negative one, and not a flag."""
    try:
        float(word)
    except ValueError:
        return False
    return True
