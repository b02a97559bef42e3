"""Which files of a folder are pairs: the naming habits of published sets, as one set of rules.

1. A *role folder* says what its images are, whatever its depth: `HR` or `GT`, and `LR`, `LQ`, `LRx2`; what
   stands before it, or a split behind it, is kept as the name of a part (`train_HR`, `ValidationGT`,
   `HR_val`, `DIV2K_train_LR_bicubic/X2`). A `_sub` behind it, as cutters append it, says nothing.
2. Elsewhere the *ending* of a name says it: `_HR`, `_GT`, `_x1`, and `_LR`, `_LR2`, `_LRx2`, `_x2`
   (RealSR, DRealSR), or a number with `H` or `L` (City100).
3. In role folders LR belongs to the HR of equal path and name, role aside; what is left over there, and
   everything elsewhere, is matched with endings set aside. Letter case does not matter, unless two names
   differ in nothing else.
4. Folders and endings may tell a scale (`Test_x4`, `_LR3`); images of other scales are passed over.
5. Folders named `test` (`Test`, `test_HR`, `Test_x2`) are passed over where there are other pairs.
6. Which files are images is said by `images.list_images`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gpnas_trainers.images import list_images
from gpnas_trainers.nearest import nearby
from gpnas_trainers.pairs.errors import PairsError
from gpnas_trainers.pairs.exclusion import Exclusion, printable


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_SPLIT = r"(?:[_-](?P<split>train(?:ing)?|valid(?:ation)?|val|test(?:ing)?))?"
_DEGRADATION = r"(?:[_-]?(?:bic(?:ubic)?|unknown|mild|difficult|wild))?"
_FOLDERS = {
    "hr": _compiled(
        r"(?:(?P<part>.+)[_-])?(?:hr|gt(?:mod\d+)?|ground[_-]?truth|high[_-]?res(?:olution)?)(?:[_-]?x1)?"
        + _SPLIT
    ),
    "lr": _compiled(
        r"(?:(?P<part>.+)[_-])?(?:lr|lq|low[_-]?res(?:olution)?)"
        + _DEGRADATION
        + r"(?:[_-]?x?\d)?"
        + _SPLIT
        + r"(?:[_-]?x?\d)?"
    ),
}
_JOINED = re.compile(r"(?<=[a-z0-9])(?=(?:HR|GT|LR|LQ)(?:x\d|bic|mod|[^a-z]|$))")
"""The place between the two words of a name such as `ValidationGT`."""
_PIECES = _compiled(r"[_-]sub(?:s|images)?$")
"""What cutters append to the names of their folders."""
_FOLDER_SCALE = _compiled(r"(?:(?:^|[_-]|lr|lq|bic|bicubic)x|(?:lr|lq)[_-]?)(?P<scale>\d)$")
_HR_ENDING = _compiled(r"(?<=.)(?:[_-](?:hr|gt|x1)|(?<=\d)h)$")
_LR_ENDING = _compiled(r"(?<=.)(?:[_-](?:lr|lq)(?:[_-]?x?(?P<lr>[2-9]))?|[_-]x(?P<x>[2-9])|(?<=\d)l)$")
_LOOSE_LR_ENDING = _compiled(
    r"(?<=.)(?:[_-]?(?:lr|lq)(?:[_-]?x?(?P<lr>[2-9]))?|[_-]?x(?P<x>[2-9])|(?<=\d)l)$"
)
_TEST = _compiled(r"(?:.+[_-])?test(?:[_-].+)?")


@dataclass(frozen=True)
class PairFiles:
    """The files of one pair."""

    name: str
    """Unique: the path that they have in common, without role and ending."""
    hr: Path
    lr: Path | None
    """None where the synthetic camera is to make it."""


@dataclass
class Found:
    """What a folder holds."""

    pairs: list[PairFiles] = field(default_factory=list)
    excluded: list[Exclusion] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was passed over, one line each."""


@dataclass(frozen=True)
class _Item:
    """An image file, as its path alone describes it."""

    path: Path
    shown: str
    role: str | None
    """`hr`, `lr` or unknown."""
    in_folder: bool
    """Its folder says so, not its ending."""
    exact: str
    """Path and name without role folder and suffix."""
    stripped: str
    """The same without the name's ending."""
    folder_scale: int | None
    ending_scale: int | None
    test: bool


def find_pairs(source: Path, scale: int) -> Found:
    """The pairs of a folder at a scale, by the rules above, in the order of HR's paths.

    Raises:
        PairsError: it is no folder, or holds no HR or no LR images of the scale.
        OSError: it cannot be read.
    """
    found = Found()
    items = _walk(source, found)
    of_scale = [item for item in items if item.role and item.folder_scale in (None, scale)]
    hr = [item for item in of_scale if item.role == "hr"]
    # LR images whose names say their scale come before others
    lr = [item for item in of_scale if item.role == "lr"]
    lr.sort(key=lambda item: scale not in (item.folder_scale, item.ending_scale))
    matched = _matched(hr, lr, scale)
    usable_lr = sum(item.ending_scale in (None, scale) for item in lr)
    if not matched and not (hr and usable_lr):
        raise PairsError(_no_layout(source, scale, len(hr), usable_lr))
    used = {item.path for pair in matched.values() for item in pair}
    of_others = {item.stripped for item in lr if item.ending_scale not in (None, scale)}
    passed = sum(item.role is not None for item in items) - len(of_scale)
    for item in (*lr, *hr):
        if item.path in used:
            continue
        if item.ending_scale not in (None, scale) or (item.role == "hr" and item.stripped in of_others):
            passed += 1
        else:
            found.excluded.append(_unmatched(item, matched.get(item.stripped)))
    trains = {name: pair for name, pair in matched.items() if not pair[0].test}
    found.pairs = [PairFiles(name, one.path, two.path) for name, (one, two) in (trains or matched).items()]
    without_role = sum(item.role is None for item in items)
    if passed:
        found.notes.append(f"{passed} images of other scales are passed over")
    if without_role:
        found.notes.append(
            f"{without_role} images whose folder and name say neither HR nor LR are passed over"
        )
    if 0 < len(trains) < len(matched):
        found.notes.append(
            f"{len(matched) - len(trains)} pairs in folders named test are passed over; "
            "give such a folder itself to use them"
        )
    return found


def find_hr(source: Path) -> Found:
    """The HR images of a folder, for the synthetic camera to make LR of.

    Where there are HR role folders, what lies in them; else all images but the LR of a pair.

    Raises:
        PairsError: it is no folder, or holds no images.
        OSError: it cannot be read.
    """
    found = Found()
    items = _walk(source, found)
    chosen = [item for item in items if item.role == "hr" and item.in_folder]
    if not chosen:
        of_pairs = {item.stripped for item in items if item.role == "hr"}
        chosen = [item for item in items if item.role != "lr" or item.stripped not in of_pairs]
    if not chosen:
        raise PairsError(f"{source}: a folder of HR images must hold at least one image, but got none")
    if len(chosen) < len(items):
        found.notes.append(f"{len(items) - len(chosen)} images that are not HR are passed over")
    first: dict[str, _Item] = {}
    for item in chosen:
        if item.exact in first:
            found.excluded.append(_unmatched(item, (first[item.exact],)))
        first.setdefault(item.exact, item)
    found.pairs = [PairFiles(name, item.path, None) for name, item in first.items()]
    return found


def _matched(hr: Sequence[_Item], lr: Sequence[_Item], scale: int) -> dict[str, tuple[_Item, _Item]]:
    """(HR, LR) that belong together, by HR's name and in HR's order.

    Equal names come first, then stripped ones, each as it is spelled and then in any case.
    """
    pairs: dict[str, tuple[_Item, _Item]] = {}
    used: set[Path] = set()

    def match(name: Callable[[_Item], str], hr: Iterable[_Item], lr: Iterable[_Item]) -> None:
        for spelled in (str, str.casefold):
            left: dict[str, _Item] = {}
            for item in lr:
                if item.path not in used:
                    left.setdefault(spelled(name(item)), item)
            for item in hr:
                partner = left.get(spelled(name(item)))
                if partner is None or {item.path, partner.path} & used or name(item) in pairs:
                    continue
                pairs[name(item)] = (item, partner)
                used.update((item.path, partner.path))

    match(
        lambda item: item.exact,
        [item for item in hr if item.in_folder],
        [item for item in lr if item.in_folder],
    )
    match(lambda item: item.stripped, hr, [item for item in lr if item.ending_scale in (None, scale)])
    order = {item.path: place for place, item in enumerate(hr)}
    return dict(sorted(pairs.items(), key=lambda pair: order[pair[1][0].path]))


def _unmatched(item: _Item, rivals: Sequence[_Item] | None) -> Exclusion:
    """Why an image has no partner; `rivals` are the images of the pair that has its name."""
    rival = next((rival for rival in rivals or () if rival.role == item.role), None)
    if rival is not None:
        why = f"an image's name must differ from the others', but it is that of {rival.shown}"
        return Exclusion(item.shown, "name", rival.shown, why)
    name = PurePosixPath(item.stripped).name
    one, other = ("HR", "LR") if item.role == "hr" else ("LR", "HR")
    why = f"an {one} image must have an {other} image of its name, but {other} has no {name}"
    return Exclusion(item.shown, "unpaired", name, why)


def _no_layout(source: Path, scale: int, hr: int, lr: int) -> str:
    folders = sorted(path.name for path in source.iterdir() if path.is_dir())
    found = ", ".join(printable(name) for name in folders[:6]) + (", …" if len(folders) > 6 else "")
    return (
        f"{source}: a folder of pairs must hold HR and LRx{scale} (or LR), or names that end in _HR and "
        f"_LR{scale}, but got {found or 'no folders'} with {hr} HR and {lr} LR images of this scale; "
        "rename them, or choose another scale"
    )


def _walk(source: Path, found: Found) -> list[_Item]:
    """The image files beneath a folder, sorted; links that lead out of it are excluded."""
    if not source.is_dir():
        raise PairsError(
            f"{source}: a folder of pairs must exist, but there is none; check the path"
            + nearby(source, Path.is_dir)
        )
    files, left_out = list_images(source, deep=True)
    found.excluded += [
        Exclusion(
            printable(each.path.relative_to(source)), each.rule, printable(each.value), printable(each.why)
        )
        for each in left_out
    ]
    return [_described(source, path) for path in files]


def _described(source: Path, path: Path) -> _Item:
    shown = printable(path.relative_to(source))
    *folders, name = shown.split("/")
    stem = PurePosixPath(name).stem
    role: str | None = None
    folder_scale: int | None = None
    kept = list(folders)
    for place in reversed(range(len(folders))):  # the nearest folder decides
        folder = _PIECES.sub("", _JOINED.sub("_", folders[place]))
        for of, pattern in _FOLDERS.items():
            says = pattern.fullmatch(folder)
            if says and role is None:
                role, kept[place] = of, "_".join(part for part in (says["part"], says["split"]) if part)
        scale = _FOLDER_SCALE.search(folder)
        if scale:
            folder_scale = folder_scale or int(scale["scale"])
            if scale.group().lower() == folder.lower() and kept[place]:
                kept[place] = ""  # a folder X2 says nothing else
    in_folder = role is not None
    endings = {"hr": _HR_ENDING, "lr": _LOOSE_LR_ENDING if in_folder else _LR_ENDING}
    ending, ending_scale = "", None
    for of, pattern in endings.items():
        says = pattern.search(stem)
        if says and role in (None, of) and not ending:
            role, ending = of, says.group()
            if of == "lr" and (says["lr"] or says["x"]):
                ending_scale = int(says["lr"] or says["x"])
    parts = [part for part in kept if part]
    return _Item(
        path=path,
        shown=shown,
        role=role,
        in_folder=in_folder,
        exact="/".join([*parts, stem]),
        stripped="/".join([*parts, stem.removesuffix(ending)]),
        folder_scale=folder_scale,
        ending_scale=ending_scale,
        test=any(_TEST.fullmatch(_JOINED.sub("_", folder)) for folder in folders),
    )
