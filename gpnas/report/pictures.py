"""Networks at work: pictures of one part of a validation image, and of what is wrong in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from gpnas.bundle import Bundle, read_bundle
from gpnas.errors import BundleError, DataError
from gpnas.journal import Journal
from gpnas.networks import check_named, declare_networks
from gpnas.report.page import Picture
from gpnas.results.picture import png_of, validation_pairs, views_of
from gpnas.run.setup import Data, Setup

WHITE = 20 / 255
"""Mean absolute error of a pixel's colours from which on it is white in an error map."""


Say = Callable[[str], None]


def pictures_of_run(
    run: Path, data: Path | None, networks: Sequence[str], say: Say
) -> tuple[list[Picture], str]:
    """Pictures of the networks that a run delivered.

    Args:
        run: its folder.
        data: folder of its pairs; None shows those of shipped photographs alone, since others may be private.
        networks: sources that the user names, in place of the run's own.
        say: gets a line where one is another than the networks were trained with.

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
        bundle = read_bundle(run / "bundle")
        if networks:
            declare_networks(bundle, networks, say)
        return list(_pictures(bundle, setup, data)), ""
    except (BundleError, DataError) as error:
        if data is not None or networks:
            raise
        return [], f"There are no pictures: {error}"


def pictures_of_bundle(
    bundle: Bundle, data: Path | None, networks: Sequence[str], say: Say
) -> tuple[list[Picture], str]:
    """Pictures of a bundle's networks, where its pairs are shipped photographs or their folder is given.

    Args:
        bundle, data: as `pictures_of_run`.
        networks: sources of its own networks.
        say: gets a line where one is another than the networks were trained with.

    Returns:
        None at all where there is something missing, and what.

    Raises:
        BundleError: a source cannot be used.
        DataError: the folder that is given cannot be used.
    """
    manifest = bundle.manifest
    known = {name: value for name, value in manifest.data.items() if name in Data.__dataclass_fields__}
    if networks:
        declare_networks(bundle, networks, say)
    try:
        check_named(bundle)
        setup = Setup(manifest.scale, manifest.recipe, Data(**known), validation_images=1)  # type: ignore[arg-type]
        if data is None and not setup.data.is_shipped:
            return [], ""
        return list(_pictures(bundle, setup, data)), ""
    except (BundleError, DataError, TypeError) as error:
        if data is not None:
            raise DataError(f"{data}: {error}") from None
        untold = isinstance(error, TypeError)  # where its pairs were not described
        return [], "" if untold else f"There are no pictures of its networks: {error}"


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
