"""Networks at work: pictures of one part of a validation image, and of what is wrong in each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from gpnas.bundle import Bundle, read_bundle
from gpnas.errors import BundleError, DataError
from gpnas.journal import Journal
from gpnas.networks import check_named
from gpnas.report.page import Picture
from gpnas.results.picture import png_of, validation_pairs, views_of
from gpnas.run.setup import Data, Setup

WHITE = 20 / 255
"""Mean absolute error of a pixel's colours from which on it is white in an error map."""


def pictures_of_run(run: Path, data: Path | None) -> tuple[list[Picture], str]:
    """Pictures of the networks that a run delivered.

    Args:
        run: its folder.
        data: folder of its pairs; None shows those of shipped photographs alone, since others may be private.

    Returns:
        None at all where there is no bundle or there are no pairs, and why.

    Raises:
        DataError: the folder that is given cannot be used.
    """
    if not (run / "bundle").is_dir():
        return [], ""
    try:
        with Journal.read(run) as journal:
            setup = Setup.of(journal)
        if data is None and not setup.data.is_shipped:
            return [], "Pictures are shown where the folder of the pairs is named with --data."
        return list(_pictures(read_bundle(run / "bundle"), setup, data)), ""
    except (BundleError, DataError) as error:
        if data is not None:
            raise
        return [], f"There are no pictures: {error}"


def pictures_of_bundle(bundle: Bundle, data: Path | None) -> list[Picture]:
    """Pictures of a bundle's networks, where its pairs are shipped photographs or their folder is given.

    Raises:
        DataError: the folder that is given cannot be used.
    """
    manifest = bundle.manifest
    known = {name: value for name, value in manifest.data.items() if name in Data.__dataclass_fields__}
    try:
        check_named(bundle)
        setup = Setup(manifest.scale, manifest.recipe, Data(**known), validation_images=1)  # type: ignore[arg-type]
        if data is None and not setup.data.is_shipped:
            return []
        return list(_pictures(bundle, setup, data))
    except (BundleError, DataError, TypeError) as error:
        if data is not None:
            raise DataError(f"{data}: {error}") from None
        return []


def _pictures(bundle: Bundle, setup: Setup, data: Path | None) -> Iterator[Picture]:
    views = views_of(bundle.members, validation_pairs(setup, data), alone=len(bundle.members) > 1)
    names = [member.candidate or str(number) for number, member in enumerate(bundle.members, start=1)]
    yield _picture("LR", f"LR, a part of {views.image}", views.lr)
    shown = [("bicubic", views.bicubic)]
    shown += [
        (f"{name}, {member.architecture}", image)
        for name, member, image in zip(names, bundle.members, views.alone, strict=False)
    ]
    shown.append(
        ("the average" if len(bundle.members) > 1 else str(bundle.members[0].architecture), views.average)
    )
    for name, image in shown:
        value = views.psnr(image)
        yield _picture(f"{name}: {value:.2f} dB", f"{name}, {value:.2f} dB beside HR", image)
    yield _picture("HR", f"HR, the photograph itself: a part of {views.image}", views.hr)
    for name, image in shown:
        error = ((image - views.hr).abs().mean(dim=0, keepdim=True) / WHITE).clamp(0, 1).expand(3, -1, -1)
        yield _picture(f"error of {name}", f"Where {name} differs from HR", error)


def _picture(caption: str, alt: str, image: Tensor) -> Picture:
    return Picture(caption, alt, png_of([image]), image.shape[2], image.shape[1])
