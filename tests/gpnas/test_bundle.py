from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from gpnas.bundle import (
    Bundle,
    Description,
    Licence,
    Manifest,
    Member,
    Picture,
    known_licence,
    manifest_schema,
    read_bundle,
    read_licence,
    write_bundle,
)
from gpnas.bundle.licensing import KNOWN
from gpnas.cli.interruption import interruptible
from gpnas.errors import BundleError
from gpnas.records import Architecture

GOLDEN = Path(__file__).parents[1] / "golden"
EXTRAS: dict[str, Any] = {
    "scale": 2,
    "recipe": {"steps": 300, "learning_rate": 0.002},
    "data": {"fingerprint": "9a01", "source": "photographs"},
    "metrics": {"bicubic": 28.5, "best": 30.25, "ensemble": 30.5},
    "seed": 3,
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "machine": {"cpus": 2},
}
FILES = {"network-1.safetensors", "network-2.safetensors", "README.md", "manifest.json", "SHA256SUMS"}


def member(seed: int, weight: float = 0.5) -> Member:
    generator = torch.Generator().manual_seed(seed)
    state = {"head.weight": torch.randn(4, 3, 3, 3, generator=generator), "head.bias": torch.zeros(4)}
    architecture = Architecture("drn", {"features": 4, "blocks": 1, "stages": 1 + seed})
    return Member(architecture, state, weight, {"psnr": 30.0 + seed, "ssim": 0.9}, f"c{seed:04d}")


def put(path: Path, members: Sequence[Member], **extras: Any) -> None:
    licence = Licence(extras.pop("licence", None), extras.pop("licence_text", None))
    picture = extras.pop("picture", None)
    write_bundle(path, members, Description(**(EXTRAS | extras)), licence=licence, picture=picture)


def write(path: Path, *members: Member, **extras: Any) -> Path:
    put(path, members or (member(0), member(1)), **extras)
    return path


def illustrated(path: Path) -> Path:
    file = io.BytesIO()
    Image.new("RGB", (4, 2), (200, 100, 50)).save(file, "PNG")
    return write(path, picture=Picture(file.getvalue(), "Two | bars"))


@pytest.fixture(params=["bundle", "bundle.zip"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / request.param)


def same(first: Any, second: Any) -> bool:
    return bool(
        first.keys() == second.keys()
        and all(
            first[name].dtype == second[name].dtype
            and first[name].shape == second[name].shape
            and torch.equal(first[name], second[name])
            for name in first
        )
    )


def same_content(first: Bundle, second: Bundle) -> bool:
    return first.manifest == second.manifest and all(
        same(one.state, two.state) for one, two in zip(first.members, second.members, strict=True)
    )


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as error:
        read_bundle(path)
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def repack(path: Path, change: Callable[[list[tuple[zipfile.ZipInfo, bytes]]], Any]) -> None:
    """Rewrites an archive with changed entries."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries:
            archive.writestr(entry, content)


def forge(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a manifest as an attacker does, who mends the checksums too."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    mend_sums(folder)


def mend_sums(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


# -- what is written is read back


def tensors() -> st.SearchStrategy[Tensor]:
    def build(shape: list[int], seed: int, dtype: torch.dtype, permuted: bool) -> Tensor:
        tensor = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 10).to(dtype)
        return tensor.transpose(0, -1) if permuted and shape else tensor

    return st.builds(
        build,
        st.lists(st.integers(1, 4), max_size=4),
        st.integers(0, 2**31),
        st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64]),
        st.booleans(),
    )


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
states = st.dictionaries(names.filter(lambda name: name != "__metadata__"), tensors(), min_size=1, max_size=3)
axes = st.dictionaries(names, st.integers(-(2**40), 2**40) | st.booleans() | names, max_size=3)
documents = st.dictionaries(
    names, st.integers() | st.booleans() | names | st.lists(names, max_size=2), max_size=3
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(states, axes, st.floats(0.01, 1)), min_size=1, max_size=3),
    st.sampled_from(["bundle", "bundle.zip"]),
    documents,
    st.none() | names,
)
def test_bundles_survive_the_disk(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Any], name: str, recipe: Any, licence: str | None
) -> None:
    folder = tmp_path_factory.mktemp("round")
    total = sum(weight for _, _, weight in parts)
    members = [
        Member(Architecture("drn", values), state, weight / total, {"psnr": 30.0})
        for state, values, weight in parts
    ]
    read = read_bundle(write(folder / name, *members, recipe=recipe, licence=licence))
    assert read.scale == 2
    assert read.manifest.recipe == recipe
    assert read.manifest.licence == licence
    for before, after in zip(members, read.members, strict=True):
        assert repr(after.architecture) == repr(before.architecture)
        assert after.weight == before.weight
        assert after.metrics == before.metrics
        assert same(after.state, before.state)
    assert [path.name for path in folder.iterdir()] == [name]
    shutil.rmtree(folder)


def test_a_bundle_is_what_other_tools_verify(bundle: Path, tmp_path: Path) -> None:
    folder = bundle
    if bundle.suffix == ".zip":
        folder = tmp_path / "extracted"
        shutil.unpack_archive(bundle, folder)
    assert {path.name for path in folder.iterdir()} == FILES
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert checked.stdout.count(": OK") == 4
    assert not [line for line in (folder / "SHA256SUMS").read_text().splitlines() if "SUMS" in line]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["members"][1]["architecture"] == {
        "family": "drn",
        "axes": {"features": 4, "blocks": 1, "stages": 2},
    }
    assert [entry["parameters"] for entry in manifest["members"]] == [112, 112]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: gpnas\n")
    for fact in ("×2", "30.50 dB", "28.50 dB", "features 4, blocks 1, stages 2", "`9a01`", "not stated"):
        assert fact in card


SCHEMA = Path(__file__).parents[2] / "docs" / "bundle.schema.json"


def test_the_published_schema_is_the_manifests() -> None:
    """As `docs/bundles.md` says how to make it."""
    published = json.loads(SCHEMA.read_text())
    assert published == manifest_schema()
    assert set(published["properties"]) == set(Manifest.model_fields)
    jsonschema.Draft202012Validator.check_schema(published)


def test_an_independent_validator_takes_what_is_written(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    folders = [GOLDEN / "bundle-v1", write(tmp_path / "a"), illustrated(tmp_path / "b")]
    for folder in folders:
        validator.validate(json.loads((folder / "manifest.json").read_text()))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"format": "other"},
        {"surprise": 1},
        {"scale": "2"},
        {"members": []},
        {"metrics": {"best": 30.0}},
        {"picture": {"file": "../picture.png"}},
        {"members": [{"file": "network.pt"}]},
        {"licence": 4},
    ],
)
def test_an_independent_validator_refuses_what_we_refuse(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = write(tmp_path / "bundle")
    forge(folder, lambda manifest: manifest.update(change))
    refusal(folder)
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert not validator.is_valid(json.loads((folder / "manifest.json").read_text()))


# -- the picture


def test_a_picture_is_a_file_like_the_others(tmp_path: Path) -> None:
    folder = illustrated(tmp_path / "bundle")
    picture = read_bundle(folder).picture
    assert picture == Picture((folder / "picture.png").read_bytes(), "Two | bars")
    with Image.open(folder / "picture.png") as image:
        assert image.size == (4, 2)
    card = (folder / "README.md").read_text()
    assert "(picture.png)\n\nTwo \\| bars\n" in card
    assert "picture.png" in (folder / "SHA256SUMS").read_text()
    read = read_bundle(illustrated(tmp_path / "bundle.zip"))
    assert read.picture == picture
    assert "picture" not in (write(tmp_path / "plain") / "README.md").read_text()
    content = (folder / "picture.png").read_bytes()
    for changed in (content[:-1], content + b"x", content[:20] + b"\xff" + content[21:]):
        (folder / "picture.png").write_bytes(changed)
        assert "picture.png has changed" in refusal(folder)
    (folder / "picture.png").unlink()
    assert "must hold picture.png, but it is missing" in refusal(folder)


def test_a_picture_that_the_manifest_does_not_name_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "bundle")
    shutil.copy(GOLDEN / "bundle-v1" / "picture.png", folder)
    assert "but also 'picture.png'" in refusal(folder)


def test_what_is_no_png_is_no_picture(tmp_path: Path) -> None:
    folder = illustrated(tmp_path / "bundle")
    content = b"<html>"
    (folder / "picture.png").write_bytes(content)

    def match(manifest: dict[str, Any]) -> None:
        manifest["picture"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    forge(folder, match)
    assert "picture.png must be a PNG file" in refusal(folder)


# -- the licence


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def test_known_licences_are_what_others_ship_of_them() -> None:
    """Word for word, beside this project's own licence and those that other packages carry."""
    apache = (Path(__file__).parents[2] / "LICENSE").read_text()
    assert words(known_licence("Apache-2.0") or "") == words(apache)
    shipped = distribution("check-jsonschema").locate_file("check_jsonschema/builtin_schemas/vendor/licenses")
    theirs = words((Path(str(shipped)) / "LICENSE.citation-file-format").read_text())
    ours = words(known_licence("cc-by-4.0") or "")
    # from the first definition to what a licensee must do; around that, editions differ in a heading
    one, other = (
        text[text.index("adapted material means material") :] for text in map(" ".join, (ours, theirs))
    )
    assert one[:9000] == other[:9000]
    pydantic = next(file for file in distribution("pydantic").files or () if file.name == "LICENSE")
    theirs = words(pydantic.read_text())
    ours = words(known_licence("MIT", "Ada  Lovelace") or "")
    assert ours[ours.index("permission") :] == theirs[theirs.index("permission") :]
    assert " ".join(ours).startswith(
        f"mit license copyright c {datetime.now(UTC).year} ada lovelace permission"
    )


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_licences_text_lies_in_the_bundle(tmp_path: Path, name: str) -> None:
    text = known_licence(name)
    assert text is not None
    assert "<year>" not in text
    for target in (tmp_path / "bundle", tmp_path / "bundle.zip"):
        read = read_bundle(write(target, licence=name))
        assert (read.licence, read.manifest.licence) == (text, name)
    folder = tmp_path / "bundle"
    assert (folder / "LICENSE").read_text() == text
    assert "LICENSE" in (folder / "SHA256SUMS").read_text()
    assert f"Licence of the weights: {name} ([LICENSE](LICENSE)). " in (folder / "README.md").read_text()
    (folder / "LICENSE").write_text(text.replace("not", "n0t", 1) if "not" in text else text + " ")
    assert "LICENSE has changed" in refusal(folder)
    (folder / "LICENSE").unlink()
    assert "must hold LICENSE, but it is missing" in refusal(folder)


def test_someones_own_licence_is_a_file_like_the_others(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Für Forschung allein.\n")
    text = read_licence(tmp_path / "mine.txt")
    read = read_bundle(write(tmp_path / "bundle", licence_text=text))
    assert (read.licence, read.manifest.licence) == ("Für Forschung allein.\n", None)
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "license: other\nlicense_link: LICENSE\n" in card
    assert "Licence of the weights: its own ([LICENSE](LICENSE)). " in card
    named = read_bundle(write(tmp_path / "named", licence="MIT", licence_text=text))
    assert (named.licence, named.manifest.licence) == (text, "MIT")  # who gives a text knows it better
    unknown = read_bundle(write(tmp_path / "unknown", licence="Own-1.0"))
    assert (unknown.licence, unknown.manifest.licence) == (None, "Own-1.0")
    assert not (tmp_path / "unknown" / "LICENSE").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "must be plain text, but is empty; name another file"),
        (b" \n\t", "must be plain text, but is empty"),
        (b"all\0yours", "must be plain text, but holds a NUL"),
        (b"caf\xe9", "must be UTF-8, but byte 3 is not; save it as UTF-8"),
        (b"x" * (2**20 + 1), "must be at most 1048576 bytes, but is larger"),
        (None, "must be readable, but No such file or directory; name another file"),
    ],
)
def test_what_is_no_text_of_a_licence_is_refused(tmp_path: Path, content: bytes | None, told: str) -> None:
    """As a file that is given, and in a bundle that someone forged."""
    file = tmp_path / "licence.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        read_licence(file)
    assert str(caught.value).startswith(f"{file}: a licence's text must be ")
    assert str(caught.value).endswith(told) or told in str(caught.value)
    if not content or len(content) > 2**20:
        return  # the schema refuses their size
    folder = write(tmp_path / "bundle", licence="MIT")
    (folder / "LICENSE").write_bytes(content)

    def match(manifest: dict[str, Any]) -> None:
        digest = hashlib.sha256(content).hexdigest()
        manifest["licence_file"] |= {"sha256": digest, "bytes": len(content)}

    forge(folder, match)
    assert f"LICENSE: a licence's text {told}" in refusal(folder)


def test_the_same_content_gives_the_same_networks(tmp_path: Path) -> None:
    write(tmp_path / "one.zip")
    write(tmp_path / "two.zip")
    first, second = (read_bundle(tmp_path / name).manifest for name in ("one.zip", "two.zip"))
    assert first.members == second.members


# -- writing: whole or not at all


class Disturbed(dict[str, Tensor]):
    """A state dictionary during whose reading a signal comes."""

    def __init__(self, state: Mapping[str, Tensor], number: int) -> None:
        super().__init__(state)
        self.number = number

    def items(self) -> Any:
        os.kill(os.getpid(), self.number)
        return super().items()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_signal_leaves_what_was_there(tmp_path: Path, name: str, number: int) -> None:
    before = read_bundle(write(tmp_path / name))
    second = member(1)
    disturbed = Member(second.architecture, Disturbed(second.state, number), 0.5)
    with pytest.raises(KeyboardInterrupt) as caught, interruptible():
        write(tmp_path / name, member(0), disturbed)
    assert caught.value.args == (number,)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert same_content(read_bundle(tmp_path / name), before)


def broken(**changes: Any) -> Member:
    good = member(0, 1.0)
    return Member(
        changes.get("architecture", good.architecture),
        changes.get("state", good.state),
        changes.get("weight", 1.0),
        changes.get("metrics", {}),
    )


@pytest.mark.parametrize(
    ("members", "extras", "says"),
    [
        ([broken(state={"w": torch.tensor([1.0, float("nan")])})], {}, "`w` holds NaN"),
        ([broken(state={"w": torch.zeros(2, dtype=torch.complex128)})], {}, "but torch.complex128"),
        ([broken(state={})], {}, "`members.0.parameters`"),
        ([broken(weight=0.7)], {}, "must sum to 1, but sum to 0.7"),
        ([broken(weight=float("nan"))], {}, "plain JSON values"),
        ([broken(metrics={"psnr": float("inf")})], {}, "plain JSON values"),
        ([broken()], {"recipe": {"optimiser": object()}}, "plain JSON values"),
        ([broken()], {"data": {"source": "x"}}, "`data` must have a `fingerprint`"),
        ([broken()], {"data": {"fingerprint": "", "pictures": 5}}, "`data.pictures` must be a list of texts"),
        ([broken()], {"data": {"fingerprint": "", "pictures": [[]]}}, "`data.pictures` must be a list of"),
        ([broken()], {"metrics": {"best": 30.0}}, "`metrics.bicubic`: Field required"),
        ([broken()], {"scale": 0}, "`scale`"),
        ([], {}, "`members`"),
    ],
)
@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_refused_bundle_leaves_nothing(
    tmp_path: Path, name: str, members: list[Member], extras: dict[str, Any], says: str
) -> None:
    with pytest.raises(BundleError) as error:
        put(tmp_path / name, members, **extras)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_earlier_bundle(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_bundle(bundle)
    with pytest.raises(BundleError):
        write(bundle, broken(weight=0.5))

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(BundleError, match="the disk is full; nothing was"):
            write(bundle)
    assert same_content(read_bundle(bundle), before)
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_a_bundle_is_replaced_by_the_next(bundle: Path) -> None:
    write(bundle, member(5, 1.0), scale=4)
    assert read_bundle(bundle).scale == 4
    assert len(read_bundle(bundle).members) == 1
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_nothing_but_a_bundle_is_ever_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    (tmp_path / "notes").write_text("mine")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.png", b"")
    write(tmp_path / "enriched")
    (tmp_path / "enriched" / "mine.txt").touch()
    (tmp_path / "folder.zip").mkdir()
    for name in ("photos", "notes", "photos.zip", "enriched", "folder.zip"):
        with pytest.raises(BundleError, match="only a bundle may be replaced"):
            write(tmp_path / name)
    assert (tmp_path / "photos" / "a.png").exists()
    assert (tmp_path / "enriched" / "mine.txt").exists()
    (tmp_path / "empty").mkdir()
    read_bundle(write(tmp_path / "empty"))
    with pytest.raises(BundleError, match="must exist, but does not"):
        write(tmp_path / "nowhere" / "bundle")


# -- reading: refused by name


def test_every_changed_byte_of_a_folder_is_refused(tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle", member(0, 1.0))
    moments = random.Random(0)
    for file in sorted(bundle.iterdir()):
        content = file.read_bytes()
        for position in [0, len(content) - 1, *(moments.randrange(len(content)) for _ in range(40))]:
            changed = bytearray(content)
            changed[position] ^= 1 << moments.randrange(8)
            file.write_bytes(changed)
            assert file.name in refusal(bundle) or file.name == "manifest.json"
        for other in (content[:-1], content + b"\n", b""):
            file.write_bytes(other)
            assert file.name in refusal(bundle)
        file.write_bytes(content)
    read_bundle(bundle)


def test_a_changed_byte_of_an_archive_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "bundle.zip", member(0, 1.0))
    expected = read_bundle(path)
    content = path.read_bytes()
    moments = random.Random(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(content)
        changed[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
        path.write_bytes(changed)
        try:
            read = read_bundle(path)
        except BundleError:
            refused += 1
        else:  # a date, or the like
            assert same_content(read, expected)
    assert refused > 150
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        refusal(path)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    if bundle.suffix == ".zip":
        repack(bundle, lambda entries: entries.remove(next(e for e in entries if e[0].filename == name)))
    else:
        (bundle / name).unlink()
    assert name in refusal(bundle)


@pytest.mark.parametrize("name", ["extra.txt", "weights.pt", "model.pth", "data.pkl", "pytorch_model.BIN"])
def test_a_surplus_file_is_named(bundle: Path, name: str) -> None:
    if bundle.suffix == ".zip":
        repack(bundle, lambda entries: entries.append((zipfile.ZipInfo(name), b"x")))
    else:
        (bundle / name).touch()
    said = refusal(bundle)
    assert repr(name) in said
    assert ("pickle" in said) == (name != "extra.txt")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was loaded",))


def test_a_pickle_in_disguise_is_never_loaded(tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle")
    content = pickle.dumps(Bomb())
    (bundle / "network-1.safetensors").write_bytes(content)

    def match(manifest: dict[str, Any]) -> None:
        manifest["members"][0] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    forge(bundle, match)
    assert "network-1.safetensors: weights must be a safetensors file" in refusal(bundle)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "/etc/outside.safetensors",
        "folder/network.safetensors",
        "..\\outside.safetensors",
        "C:outside.safetensors",
        ".hidden.safetensors",
        "network.pt",
        "manifest.json",
    ],
)
def test_paths_that_leave_the_bundle_are_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "bundle")
    (tmp_path / "outside.safetensors").write_bytes((folder / "network-1.safetensors").read_bytes())
    forge(folder, lambda manifest: manifest["members"][0].update(file=name))
    assert "`members.0.file`" in refusal(folder)


@pytest.mark.parametrize("name", ["../slip.txt", "/slip.txt", "a/slip.txt", "..\\slip.txt", "folder/"])
def test_archives_do_not_slip_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in" / "bundle.zip")
    repack(path, lambda entries: entries.append((zipfile.ZipInfo(name), b"")))
    assert "plain files at its top alone" in refusal(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]
    assert [entry.name for entry in (tmp_path / "in").iterdir()] == ["bundle.zip"]


def test_links_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle")
    outside = tmp_path / "outside"
    shutil.copy(bundle / "network-1.safetensors", outside)
    (bundle / "network-1.safetensors").unlink()
    (bundle / "network-1.safetensors").symlink_to(outside)
    assert "'network-1.safetensors' is a link" in refusal(bundle)
    (bundle / "network-1.safetensors").unlink()
    os.mkfifo(bundle / "network-1.safetensors")
    assert "'network-1.safetensors' is no file" in refusal(bundle)  # and reading it does not wait
    (bundle / "network-1.safetensors").unlink()
    (bundle / "network-1.safetensors").mkdir()
    assert "'network-1.safetensors' is a folder" in refusal(bundle)


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bundle.zip")

    def link(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
        entries[0][0].external_attr = 0o120777 << 16

    repack(path, link)
    assert "plain files at its top alone" in refusal(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bundle.zip")
    repack(path, lambda entries: entries.append((zipfile.ZipInfo("manifest.json"), b"{}")))
    assert "'manifest.json' twice" in refusal(path)


def test_archives_that_grow_beyond_reason_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bundle.zip")

    def inflate(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
        entries[0][0].compress_type = zipfile.ZIP_DEFLATED
        entries[0] = (entries[0][0], bytes(50_000_000))

    repack(path, inflate)
    assert "at most 20 times its size" in refusal(path)
    many = write(tmp_path / "many.zip")
    repack(many, lambda entries: entries.extend((zipfile.ZipInfo(f"{i}.txt"), b"") for i in range(100)))
    assert "at most 70 files" in refusal(many)


def test_an_archive_packed_anew_by_another_tool_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "bundle")
    shutil.make_archive(str(tmp_path / "packed"), "gztar", folder)  # not a bundle
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    assert same_content(read_bundle(tmp_path / "packed.zip"), read_bundle(folder))
    assert "whole .zip file" in refusal(tmp_path / "packed.tar.gz")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda manifest: manifest.update(version=2), "up to version 1, but got version 2"),
        (lambda manifest: manifest.update(version="1"), "`version`"),
        (lambda manifest: manifest.update(format="other"), "must be 'gpnas bundle', but got 'other'"),
        (lambda manifest: manifest.pop("scale"), "`scale`: Field required"),
        (lambda manifest: manifest.update(surprise=1), "`surprise`: Extra inputs are not permitted"),
        (lambda manifest: manifest.update(scale="2"), "`scale`"),
        (lambda manifest: manifest.update(members=[]), "`members`"),
        (lambda manifest: manifest["members"].append(manifest["members"][0]), "files of their own"),
        (lambda manifest: manifest["members"][0].update(weight=0.9), "must sum to 1"),
        (lambda manifest: manifest["members"][0].update(weight=-0.5), "`members.0.weight`"),
        (lambda manifest: manifest["members"][0].update(bytes=-1), "`members.0.bytes`"),
        (lambda manifest: manifest["members"][0].update(sha256="0" * 63), "`members.0.sha256`"),
        (
            lambda manifest: manifest["members"][0].update(sha256="0" * 64),
            "must agree, but one has changed",
        ),
        (
            lambda manifest: manifest["members"][0].update(parameters=113),
            "must hold 113 parameters, but holds 112",
        ),
        (lambda manifest: manifest["model_card"].update(file="../README.md"), "`model_card.file`"),
    ],
)
def test_malformed_manifests_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    bundle = write(tmp_path / "bundle")
    forge(bundle, change)
    assert says in refusal(bundle)


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff\xfe", b'{"format": ', b"[" * 100_000, b"null"])
def test_manifests_that_are_no_json_object_are_refused(tmp_path: Path, text: bytes) -> None:
    bundle = write(tmp_path / "bundle")
    (bundle / "manifest.json").write_bytes(text)
    mend_sums(bundle)
    assert "manifest.json" in refusal(bundle)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (torch.full((112,), float("nan")), "must be finite"),
        (
            torch.ones(112, dtype=torch.bool),
            "bfloat16, int64, but `head.weight` is bool",
        ),
        (torch.ones(112, dtype=torch.int8), "`head.weight` is int8"),
        (torch.ones(112, dtype=torch.complex64), "is complex64"),
        (torch.ones(112).to(torch.float8_e5m2), "is float8_e5m2"),
    ],
)
def test_weights_that_are_no_finite_floats_are_refused(tmp_path: Path, weights: Tensor, said: str) -> None:
    from safetensors.torch import save

    bundle = write(tmp_path / "bundle")
    content = save({"head.weight": weights})
    (bundle / "network-1.safetensors").write_bytes(content)

    def match(manifest: dict[str, Any]) -> None:
        manifest["members"][0] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    forge(bundle, match)
    assert said in refusal(bundle)


@pytest.mark.parametrize("size", [10**13, 10**18, 10**30])
@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_no_room_is_made_for_sizes_that_a_manifest_makes_up(tmp_path: Path, name: str, size: int) -> None:
    bundle = write(tmp_path / "bundle")
    forge(bundle, lambda manifest: manifest["members"][0].update(bytes=size))
    if name != "bundle":
        shutil.make_archive(str(bundle), "zip", bundle)
    assert "network-1.safetensors has changed" in refusal(tmp_path / name)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    assert "there is nothing" in refusal(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "must hold manifest.json" in refusal(tmp_path / "empty")
    (tmp_path / "file.zip").write_bytes(b"x" * 100)
    assert "File is not a zip file" in refusal(tmp_path / "file.zip")


# -- every version ever shipped stays readable


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_golden_bundles(suffix: str) -> None:
    golden = read_bundle(GOLDEN / f"bundle-v1{suffix}")
    assert golden.manifest.version == 1
    assert golden.scale == 2
    assert [str(entry.architecture) for entry in golden.members] == [
        "drn:features=2,blocks=1,stages=1,upsampler=direct",
        "rcan:features=2,groups=1,blocks=1",
    ]
    assert [entry.weight for entry in golden.members] == [0.75, 0.25]
    assert [entry.candidate for entry in golden.members] == ["c0003", None]
    expected = {"head.weight": torch.arange(54, dtype=torch.float32).reshape(2, 3, 3, 3) / 64}
    assert same(golden.members[0].state, expected | {"head.bias": torch.tensor([0.5, -0.25])})
    assert same(golden.members[1].state, {"tail": torch.tensor(1.5, dtype=torch.bfloat16)})
    assert golden.manifest.metrics.ensemble == 30.5
    assert golden.manifest.licence == "CC-BY-4.0"
    assert golden.manifest.journal == {"candidates": 4, "observations": 4}
    assert golden.manifest.recipe == {"steps": 300, "learning_rate": 0.002}
    assert golden.licence == known_licence("CC-BY-4.0")
    assert golden.picture is not None
    assert golden.picture.caption == "A ramp of red and green."
    with Image.open(io.BytesIO(golden.picture.png)) as image:
        assert [image.getpixel((x, y)) for x, y in ((0, 0), (7, 0), (0, 5))] == [
            (0, 0, 0), (224, 0, 0), (0, 200, 0)
        ]  # fmt: skip


def test_a_run_folder_is_taken_as_the_bundle_in_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "journal.sqlite").write_bytes(b"")
    (run / "candidates").mkdir()
    assert "this is a run folder that has none yet; finish the run" in refusal(run)
    assert read_bundle(write(run / "bundle")).manifest == read_bundle(run).manifest
    (tmp_path / "photos" / "2025").mkdir(parents=True)
    assert "must hold manifest.json, but this does not" in refusal(tmp_path / "photos")  # nothing to remove


def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    assert "must be a regular file, but is a pipe" in refusal(tmp_path / "pipe.zip")
    assert "must be a regular file, but is a device" in refusal(Path("/dev/zero"))
    (tmp_path / "link.zip").symlink_to(write(tmp_path / "bundle.zip"))
    assert read_bundle(tmp_path / "link.zip").scale == 2  # a user may name it so
    with pytest.raises(BundleError, match="is a device"):
        read_licence(Path("/dev/zero"))
