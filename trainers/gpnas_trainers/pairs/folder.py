"""Pairs of a user's folder: found, checked, split and, in a preparation, written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from gpnas_trainers.pairs.camera import Camera
from gpnas_trainers.pairs.errors import PairsError
from gpnas_trainers.pairs.examining import ASKED_BY, Job, Measured, shown
from gpnas_trainers.pairs.exclusion import Exclusion, printable
from gpnas_trainers.pairs.manifest import Manifest, read_manifest
from gpnas_trainers.pairs.names import Found, find_hr, find_pairs
from gpnas_trainers.pairs.rules import LENIENT, Rules
from gpnas_trainers.pairs.shards import WORKER_BYTES, Examined, cores, deal, examine_all
from gpnas_trainers.pairs.splitting import Split, split_pairs
from gpnas_trainers.pairs.writing import check_scale, key, publish, usable, work_folder

Report = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Checked:
    """What a folder holds, and what a preparation would make of it."""

    found: int
    """Pairs by name."""
    usable: tuple[Examined, ...]
    excluded: tuple[Exclusion, ...]
    """One per file that is left out, with its rule and value."""
    notes: tuple[str, ...]
    """What was passed over, one line each."""
    split: Split | None
    """None where too little is left to split."""
    problem: str | None
    """Why nothing can be prepared; None where it can."""

    @property
    def measured(self) -> tuple[Measured, ...]:
        """The measurements of the usable pairs, in their order."""
        return tuple(each.measured for each in self.usable if each.measured is not None)


@dataclass(frozen=True)
class _Work:
    """What is asked for, with everything that decides the outcome."""

    job: Job
    found: Found = field(repr=False)
    stamps: list[tuple[str, int, int]] = field(repr=False)
    """Name, bytes and time of change of each file."""
    sizes: list[int] = field(repr=False)
    """Bytes of the files of each pair."""

    def description(self) -> dict[str, Any]:
        """What names a prepared set."""
        camera = self.job.camera
        return {
            "kind": "folder" if camera is None else "synthetic",
            "camera": None if camera is None else asdict(camera),
            "scale": self.job.scale,
            "rules": asdict(self.job.rules),
            "path": printable(self.job.source),
            "excluded": [exclusion.line for exclusion in self.found.excluded],
            "files": [list(stamp) for stamp in self.stamps],
        }


def prepare_folder(
    source: str | Path,
    cache: str | Path,
    scale: int,
    rules: Rules = LENIENT,
    *,
    camera: Camera | None = None,
    workers: int | None = 1,
    report: Report | None = None,
    progress: Progress | None = None,
) -> Path:
    """Pairs of a user's folder, checked, split and written once.

    `names` says which files are pairs. Unusable pairs are left out, with one line each; the rest goes on.
    HR may exceed scale times LR by less than the scale (right, bottom) and is then cropped. With a camera
    the folder holds HR images alone, at any depth, of which it makes LR as deep as HR.

    The split is by photograph, a function of the seed and of HR pixels: of images with equal HR pixels
    only the first is kept, and pairs that show the same photograph are on one side (`splitting`).

    At no time more than one pair per process is in memory. A later call goes on with what an interrupted
    one has finished.

    Args:
        source: the folder.
        cache: folder in which the set's own folder is made.
        scale: HR pixels per LR pixel, at least 2.
        rules: which pairs are usable, and how they are split.
        camera: makes LR; None: the folder holds pairs.
        workers: processes; None is as many as there are cores and enough to do. More than one need a
            script that starts under `if __name__ == "__main__"`.
        report: gets one line per exclusion, also when the set was made before.
        progress: called with images done and all.

    Returns:
        The folder, to be given to `open_pairs`. If names, sizes and times of the files are those of
        an earlier call, that call's folder, at once.

    Raises:
        PairsError: the folder's layout or scale is wrong, nothing usable is left or too little to
            split, or the cache is not writable.
    """
    work = _planned(source, scale, rules, camera)
    cache = Path(cache).absolute()
    report = report or (lambda line: None)
    description = work.description()
    slug = f"{_slug(work.job.source.name)}-x{work.job.scale}-"
    target = cache / f"{slug}{key(description)}"
    manifest = usable(target, report)
    if manifest is None:
        equal = _equal_set(cache, slug, description)
        if equal is not None:
            target, manifest = equal
    if manifest is None:
        with work_folder(target) as folder:
            if folder is not None:
                checked = _checked(work, folder, workers, progress)
                for exclusion in checked.excluded:
                    report(exclusion.line)
                if checked.problem is not None or checked.split is None:
                    raise PairsError(checked.problem)
                held = set(checked.split.validation)
                entries = [
                    replace(each.entry, split="validation" if each.name in held else "train")
                    for each in checked.usable
                    if each.entry is not None
                ]
                document = {
                    "scale": work.job.scale,
                    "seed": work.job.rules.seed,
                    "source": description,
                    "excluded": [asdict(exclusion) for exclusion in checked.excluded],
                    "notes": checked.notes,
                    "groups": checked.split.groups,
                }
                publish(folder, target, document, entries)
                return target
        manifest = usable(target)  # another process made it meanwhile
    for exclusion in manifest.excluded if manifest is not None else ():
        report(exclusion.line)
    return target


def check_folder(
    source: str | Path,
    scale: int,
    rules: Rules = LENIENT,
    *,
    camera: Camera | None = None,
    workers: int | None = 1,
    progress: Progress | None = None,
) -> Checked:
    """What `prepare_folder`, whose arguments these are, would do; nothing is written.

    Raises:
        PairsError: the folder's layout or scale is wrong.
    """
    return _checked(_planned(source, scale, rules, camera), None, workers, progress)


def _planned(source: str | Path, scale: int, rules: Rules, camera: Camera | None) -> _Work:
    check_scale(scale)
    source = Path(source).absolute()
    stamps: list[tuple[str, int, int]] = []
    sizes: list[int] = []
    try:
        found = find_hr(source) if camera is not None else find_pairs(source, scale)
        for pair in found.pairs:
            sizes.append(0)
            for path in (pair.hr, pair.lr):
                if path is not None:
                    status = path.stat()
                    stamps.append((printable(path.relative_to(source)), status.st_size, status.st_mtime_ns))
                    sizes[-1] += status.st_size
    except OSError as error:
        raise PairsError(f"{source}: a folder of pairs must be readable, but got {error}") from None
    return _Work(Job(source, scale, rules, camera), found, stamps, sizes)


def _checked(work: _Work, folder: Path | None, workers: int | None, progress: Progress | None) -> Checked:
    """What is kept of the pairs once they are examined, and how it is split; a folder is written to."""
    if workers is None:
        workers = min(cores(), 1 + sum(work.sizes) // WORKER_BYTES)
    elif workers < 1:
        raise PairsError(f"`workers >= 1` must hold, but got {workers}")
    shards = deal(work.found.pairs, work.sizes)
    examined = examine_all(work.job, shards, folder, workers=workers, progress=progress)
    rules, excluded = work.job.rules, list(work.found.excluded)
    files = {pair.name: pair for pair in work.found.pairs}
    seen: dict[str, str] = {}
    usable: list[Examined] = []
    for each in examined:
        if each.measured is None:
            assert each.exclusion is not None
            excluded.append(each.exclusion)
            continue
        first = seen.setdefault(each.measured.hr_sha256, each.name)
        if first == each.name:
            usable.append(each)
        else:
            shown_path = printable(files[each.name].hr.relative_to(work.job.source))
            why = f"HR pixels must be in one pair only, but equal those of {first}"
            excluded.append(Exclusion(shown_path, "duplicate", first, why))
    problem, split = None, None
    measured = [each.measured for each in usable if each.measured is not None]
    if not usable:
        problem = _nothing_left(work.job, excluded)
    else:
        split = split_pairs(
            [each.name for each in usable],
            [each.hr_sha256 for each in measured],
            [each.thumbnail for each in measured],
            seed=rules.seed,
            fraction=rules.validation_fraction,
            limit=rules.max_validation,
        )
        if rules.validation_fraction < 1 and not split.train:
            groups = f" that show {len(split.groups)} photographs" if split.groups else ""
            problem = (
                f"{work.job.source}: training and validation need at least one pair each, but got "
                f"{len(usable)} usable pairs{groups} in all; bring more"
            )
            split = None
    return Checked(
        found=len(work.found.pairs),
        usable=tuple(usable),
        excluded=tuple(excluded),
        notes=tuple(work.found.notes),
        split=split,
        problem=problem,
    )


def _equal_set(cache: Path, slug: str, description: dict[str, Any]) -> tuple[Path, Manifest] | None:
    """A set that differs from what is asked for in `minimum_side` alone, and leaves out the same pairs.

    So a search finds what was prepared before its patches' size was known.
    """
    for path in sorted(cache.glob(f"{slug}*")):
        try:
            manifest = read_manifest(path)
        except PairsError:
            continue
        sides = [dict(each.get("rules") or {}) for each in (manifest.source, description)]
        its, asked = (each.pop("minimum_side", 0) for each in sides)
        if {**manifest.source, "rules": sides[0]} != {**description, "rules": sides[1]}:
            continue
        smallest = min(manifest.scale * min(entry.lr_shape) for entry in manifest.images)
        if its <= asked <= smallest and usable(path) is not None:
            return path, manifest
    return None


def _nothing_left(job: Job, excluded: Sequence[Exclusion]) -> str:
    misfits = [exclusion for exclusion in excluded if exclusion.rule == "size"]
    apart = [float(exclusion.value) for exclusion in excluded if exclusion.rule == "ncc"]
    if len(apart) > len(excluded) / 2:
        return (
            f"{job.source}: LR and HR must agree to an NCC of {job.rules.minimum_ncc:g}, but of "
            f"{len(apart)} pairs none does, the best {max(apart):.4f}; look at some pairs side by side, or "
            "demand less"
        )
    small = [exclusion for exclusion in excluded if exclusion.rule == "small"]
    if len(small) > len(excluded) / 2:
        largest = max(small, key=lambda each: min(map(int, re.findall(r"\d+", each.value))))
        return (
            f"{job.source}: HR sides must have at least {job.rules.minimum_side} pixels ({ASKED_BY}), but of "
            f"{len(small)} pairs none has, the largest {largest.value}; "
            "take smaller patches, or bring larger images"
        )
    if not misfits or len(misfits) < len(excluded) / 2:
        why = (
            f"{len(excluded)} files were excluded, the first: {excluded[0].line}" if excluded else "got none"
        )
        return f"{job.source}: at least one usable pair must be there, but {why}"
    sizes = [tuple(map(int, re.findall(r"\d+", exclusion.value))) for exclusion in misfits]
    ratios = {Fraction(size[place + 2], size[place]) for size in sizes for place in (0, 1)}
    match sorted(ratios):
        case [one] if one == 1:
            advice = (
                "LR is as large as HR, as registered captures are: prepare the folder with "
                "`gpnas data prepare --downsample-lr`, and give what that prepares"
            )
        case [one] if one.denominator == 1:
            advice = f"they fit scale {one}: choose that, or bring the LR images of scale {job.scale}"
        case _:
            advice = "they fit no one scale: bring the LR images of this one"
    width, height, wide, tall = sizes[0]
    return (
        f"{job.source}: HR must be {job.scale} times as large as LR, but in none of {len(misfits)} pairs it "
        f"is ({misfits[0].file}: LR {shown((height, width))}, HR {shown((tall, wide))}); {advice}"
    )


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:100] or "folder"
