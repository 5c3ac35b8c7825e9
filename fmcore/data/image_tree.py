"""A tree of folders with images: what lies in it, which folders are classes, and which are the two splits."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fmcore.data.photographs import SUFFIXES as PHOTOGRAPHS
from fmcore.data.plain_files import file_size
from fmcore.data.recipe import SourceFile

SUFFIXES = PHOTOGRAPHS | {".webp"}
ENDINGS = ", ".join(sorted(SUFFIXES))
HELD_OUT = ("val", "test")  # the held-out split is the first of them that is there
LIKE_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
NO_TEXT = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control characters, bytes that are no text, and ends of lines


@dataclass(frozen=True)
class Tree:
    """What lies in a folder and below it; all names are relative to it, with slashes.

    Attributes:
        root: the folder.
        files: the images, by their endings, sorted by name.
        folders: all folders.
        odd: for each entry with the name of an image that cannot be read as a file, a sentence that says why.
    """

    root: Path
    files: tuple[SourceFile, ...]
    folders: tuple[str, ...]
    odd: dict[str, str]

    def holding(self, part: str) -> tuple[SourceFile, ...]:
        """The images in a part of the tree: "" for all, or the name of a folder with a slash."""
        return tuple(file for file in self.files if file.name.startswith(part))


@dataclass(frozen=True)
class Part:
    """The images of a part of a tree, and the name of the class of each; no classes have one name, the empty one."""

    files: tuple[SourceFile, ...]
    classes: tuple[str, ...]
    class_of: tuple[str, ...]


def walk(root: Path) -> Tree:
    """All that lies in a folder and below it; what is hidden, or has no ending of an image, is passed over.

    Links are followed. Nothing is opened.

    Raises:
        OSError: if a folder cannot be read.
        ValueError: if a link leads to a folder that it lies in, or the name of a folder is no text.
    """
    files: list[SourceFile] = []
    folders: list[str] = []
    odd: dict[str, str] = {}
    left: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while left:
        prefix, above = left.pop()
        status = os.stat(root / prefix)
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise ValueError(f"{root / prefix} is a link to a folder that it lies in: remove the link")
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    continue
                if os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                    try:
                        files.append(SourceFile(name, file_size(root / _text(root, name))))
                    except ValueError as error:
                        odd[name] = str(error)
                elif os.path.isdir(entry.path):
                    folders.append(_text(root, name))
                    left.append((f"{name}/", (*above, here)))
    return Tree(
        root, tuple(sorted(files, key=lambda file: file.name)), tuple(sorted(folders)), dict(sorted(odd.items()))
    )


def _text(root: Path, name: str) -> str:
    """The name; raises ValueError if it breaks lines, or is no text at all, so that no message could name it."""
    if any(unicodedata.category(letter) in NO_TEXT for letter in name):
        raise ValueError(
            f"{str(root / name)!a} has control characters or bytes that are no text in its name: rename it"
        )
    return name


def splits(tree: Tree) -> tuple[str, str | None]:
    """The parts of a tree that are trained on and held out: ("train/", "val/"), or ("", None) if it has no splits.

    Raises:
        ValueError: if there are images beside the splits, or folders that are splits by another name.
    """
    top = [name for name in tree.folders if "/" not in name]
    held_out = next((name for name in HELD_OUT if name in top), None)
    if "train" in top and held_out:
        known = tuple(f"{name}/" for name in ("train", *HELD_OUT))
        beside = [file.name for file in tree.files if not file.name.startswith(known)]
        if beside:
            raise ValueError(
                f"{tree.root / beside[0]} lies beside train/ and {held_out}/, which are the two splits: move it into a "
                "class of one of them, or out of this folder"
            )
        return "train/", f"{held_out}/"
    if top and {name.lower() for name in top} <= LIKE_SPLITS:
        raise ValueError(
            f"{tree.root} holds {', '.join(f'{name}/' for name in top)}, which looks like splits, not classes: splits "
            "are train/ and val/ (or test/); to have images held out by their names, name one of these as the folder"
        )
    return "", None


def part_of(tree: Tree, part: str) -> Part:
    """The images of a part of a tree with their classes: the folders directly in it, or none if there are only images.

    Raises:
        ValueError: if it holds no images, a class has none, or there are images both in classes and beside them.
    """
    folder, files = tree.root / part, tree.holding(part)
    inside = [file.name[len(part) :] for file in files]
    direct = [name for name in inside if "/" not in name]
    if not files:
        raise ValueError(f"{folder} holds no images ({ENDINGS}): put a folder of images for each class there")
    if len(direct) == len(files):
        return Part(files, (), ("",) * len(files))
    class_of = tuple(name.partition("/")[0] for name in inside)
    classes = sorted({*class_of} - {*direct})
    if direct:
        raise ValueError(
            f"{folder / direct[0]} lies beside folders of images, such as {classes[0]}/, which are classes: move it "
            "into one of them, or all images into this folder to have no classes"
        )
    empty = _directly_in(part, tree.folders) - {*classes}
    if empty:
        raise ValueError(
            f"{folder / min(empty)} holds no images ({ENDINGS}): put the images of this class there, or remove it"
        )
    return Part(files, tuple(classes), class_of)


def _directly_in(part: str, folders: Iterable[str]) -> set[str]:
    names = (name[len(part) :] for name in folders if name.startswith(part))
    return {name for name in names if "/" not in name}
