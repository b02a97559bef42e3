"""The schema of a bundle's manifest."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from gpnas.errors import BundleError

VERSION = 1
"""Version of the format; raised when a reader of an older one could not use or verify the new."""

MANIFEST = "manifest.json"
README = "README.md"
PICTURE = "picture.png"
LICENCE = "LICENSE"
"""The name that hubs and people look for."""
SUMS = "SHA256SUMS"
FUSION = "fusion.safetensors"

MAX_MEMBERS = 64
MAX_PICTURE = 16 * 2**20
"""Bytes."""
MAX_LICENCE = 2**20
"""Bytes."""
MAX_FUSION = 2**22
"""Bytes."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelCard(_Strict):
    """The file for people, as it must be found."""

    file: Literal["README.md"]
    sha256: Digest
    bytes: int = Field(ge=0)


class PictureFile(_Strict):
    """What the networks do, seen: LR, bicubic, their average, HR."""

    file: Literal["picture.png"]
    sha256: Digest
    bytes: int = Field(ge=0, le=MAX_PICTURE)
    caption: str
    """What it shows, in a sentence or two."""


class LicenceFile(_Strict):
    """The text of the licence."""

    file: Literal["LICENSE"]
    sha256: Digest
    bytes: int = Field(ge=1, le=MAX_LICENCE)


class FusionFile(_Strict):
    """Weights of the networks for each pixel, in place of one for each network, and why they are used."""

    file: Literal["fusion.safetensors"]
    sha256: Digest
    bytes: int = Field(ge=1, le=MAX_FUSION)
    kind: Literal["table", "gate"]
    """`table`: by cells of intensity, slope and distance of the networks; `gate`: by three convolutions."""
    gain: float
    """Mean gain in dB over one weight per network, on validation images that it was not fitted to."""
    error: float = Field(ge=0)
    """Standard error of the gain in dB."""
    images: int = Field(ge=1)
    """How many images it was learned on."""


class MemberArchitecture(_Strict):
    """An architecture as it is written."""

    family: str = Field(min_length=1)
    axes: dict[str, bool | int | float | str]


class MemberFile(_Strict):
    """One network of the average, and its file as it must be found."""

    # a plain name: no folder, no drive, nothing hidden, and no suffix but these
    file: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}\.(safetensors|onnx)$")]
    sha256: Digest
    bytes: int = Field(ge=0)
    architecture: MemberArchitecture
    parameters: int = Field(ge=1)
    """Numbers in its state dictionary, or in the tensors of its ONNX file."""
    weight: float = Field(ge=0, le=1)
    """Its share of the average."""
    metrics: dict[str, float]
    """What it reached alone on the validation images."""
    candidate: str | None
    """Name of the candidate of the search whose trial trained it."""


class NetworkSource(_Strict):
    """The source of networks that no gpnas has: a bundle names it, and never carries it."""

    network: str = Field(min_length=1, max_length=1000)
    """How the search named it: `nets.py:Mine`, or `package.module:name`."""
    sha256: Digest
    """The digest of its text."""


class Metrics(_Strict):
    """PSNR in dB (RGB) on the validation images of the search."""

    bicubic: float
    best: float
    """PSNR in dB of the best network alone."""
    ensemble: float
    """PSNR in dB of the weighted average of the members."""


class Manifest(_Strict):
    """Everything about a bundle that a program may want to know; `manifest.json`."""

    format: Literal["gpnas bundle"]
    version: int = Field(ge=1, le=VERSION)
    """Version of this format."""
    gpnas: str
    """Version of gpnas that wrote it."""
    created: str
    """ISO 8601, UTC."""
    licence: str | None
    """Under which the weights may be used, an SPDX identifier where there is one; None: not stated."""
    scale: int = Field(ge=1, le=64)
    """Super-resolution factor."""
    metrics: Metrics
    members: tuple[MemberFile, ...] = Field(min_length=1, max_length=MAX_MEMBERS)
    recipe: dict[str, JsonValue]
    """How the networks were trained."""
    data: dict[str, JsonValue]
    """What they were trained on: at least its `fingerprint`."""
    seed: int
    """The seed of the search."""
    versions: dict[str, str]
    """Versions of Python and of the packages that the results depend on."""
    machine: dict[str, JsonValue]
    """What the search ran on."""
    journal: dict[str, JsonValue] | None
    """What the search's journal says of the members; None where there was no search."""
    model_card: ModelCard
    networks: dict[str, NetworkSource] = Field(default={}, max_length=MAX_MEMBERS)
    """The source of members that are networks of someone's own, by family."""
    picture: PictureFile | None = None
    """None: there is none."""
    licence_file: LicenceFile | None = None
    """None: there is none."""
    fusion: FusionFile | None = None
    """None: the networks have one weight each."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Manifest:
        names = [member.file for member in self.members]
        if len(set(names)) < len(names):
            raise ValueError(f"members must have files of their own, but got {names}")
        total = math.fsum(member.weight for member in self.members)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the members' weights must sum to 1, but sum to {total}")
        if not isinstance(self.data.get("fingerprint"), str):
            raise ValueError("`data` must have a `fingerprint`, but has none")
        pictures = self.data.get("pictures", [])
        if not (isinstance(pictures, list) and all(isinstance(each, str) for each in pictures)):
            raise ValueError(f"`data.pictures` must be a list of texts, but got {pictures!r:.60}")
        return self

    def to_bytes(self) -> bytes:
        """The manifest as it is written."""
        text = json.dumps(self.model_dump(), indent=2, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"


def manifest_schema() -> dict[str, Any]:
    """The manifest's JSON schema, for programs that read bundles without gpnas."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}


class _Version(BaseModel):
    format: JsonValue = None
    version: JsonValue = None


def parse_manifest(text: bytes, where: str) -> Manifest:
    """A manifest that has been checked.

    Args:
        text: of the file.
        where: names the bundle, for the error.

    Raises:
        BundleError: it breaks the schema, or a newer gpnas wrote it.
    """
    try:
        head = _Version.model_validate_json(text)
        if head.format != "gpnas bundle":
            raise BundleError(
                f"{where}: `format` in {MANIFEST} must be 'gpnas bundle', but got {str(head.format)[:60]!r}; "
                "name a bundle that `gpnas search` or `gpnas export` wrote"
            )
        if isinstance(head.version, int) and head.version > VERSION:
            raise BundleError(
                f"{where}: this gpnas reads bundles up to version {VERSION}, but got version {head.version}; "
                "a newer gpnas wrote it, so install that"
            )
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(
            f"{where}: {MANIFEST} must follow its schema, but {explain(error)}; "
            "fetch or export the bundle again"
        ) from None


def explain(error: ValidationError) -> str:
    """What is wrong with a document, in one line."""
    first = error.errors()[0]
    place = ".".join(str(step) for step in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if not place:
        return " ".join(reason.split())
    return " ".join(f"`{place}`: {reason}, but got {str(first['input'])[:60]!r}".split())


def sums(digests: Iterable[tuple[str, str]]) -> bytes:
    """The text of SHA256SUMS.

    Args:
        digests: name and SHA-256 of each file.
    """
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests)).encode()
