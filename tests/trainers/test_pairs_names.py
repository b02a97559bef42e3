"""Which files are pairs: the published sets' own names, each written out by hand."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from gpnas_trainers.pairs import PairsError
from gpnas_trainers.pairs.exclusion import printable
from gpnas_trainers.pairs.names import Found, find_hr, find_pairs


def lay_out(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return root


def table(root: Path, found: Found) -> dict[str, tuple[str, str]]:
    return {
        pair.name: (str(pair.hr.relative_to(root)), str(pair.lr.relative_to(root)))
        for pair in found.pairs
        if pair.lr is not None
    }


HABITS = {
    "equal names": (
        ["HR/1.png", "HR/2.jpg", "LRx2/1.png", "LRx2/2.webp", "LRx3/1.png", "LRx3/2.tif"],
        {"1": ("HR/1.png", "LRx2/1.png"), "2": ("HR/2.jpg", "LRx2/2.webp")},
        ["2 images of other scales"],
    ),
    "RealSR version 3": (
        [
            "Canon/Train/2/Canon_001_HR.png",
            "Canon/Train/2/Canon_001_LR2.png",
            "Canon/Train/3/Canon_001_HR.png",
            "Canon/Train/3/Canon_001_LR3.png",
            "Nikon/Train/2/Nikon_007_HR.png",
            "Nikon/Train/2/Nikon_007_LR2.png",
            "Nikon/Test/2/Nikon_001_HR.png",
            "Nikon/Test/2/Nikon_001_LR2.png",
        ],
        {
            "Canon/Train/2/Canon_001": ("Canon/Train/2/Canon_001_HR.png", "Canon/Train/2/Canon_001_LR2.png"),
            "Nikon/Train/2/Nikon_007": ("Nikon/Train/2/Nikon_007_HR.png", "Nikon/Train/2/Nikon_007_LR2.png"),
        },
        ["2 images of other scales", "1 pairs in folders named test"],
    ),
    "RealSR, one folder": (
        ["Canon_001_HR.png", "Canon_001_LR2.png", "Canon_001_LR3.png", "Canon_001_LR4.png"],
        {"Canon_001": ("Canon_001_HR.png", "Canon_001_LR2.png")},
        ["2 images of other scales"],
    ),
    "DRealSR": (
        [
            "Test_x2/test_HR/DSC_1412_x1.png",
            "Test_x2/test_LR/DSC_1412_x2.png",
            "Test_x4/test_HR/DSC_1412_x1.png",
            "Test_x4/test_LR/DSC_1412_x4.png",
        ],
        {"Test_x2/test/DSC_1412": ("Test_x2/test_HR/DSC_1412_x1.png", "Test_x2/test_LR/DSC_1412_x2.png")},
        ["2 images of other scales"],
    ),
    "DRealSR, one folder": (
        ["P1_x1.png", "P1_x2.png", "P1_x3.png", "P2_x1.png", "P2_x2.png", "P3_x1.png", "P3_x4.png"],
        {"P1": ("P1_x1.png", "P1_x2.png"), "P2": ("P2_x1.png", "P2_x2.png")},
        ["3 images of other scales"],
    ),
    "City100": (
        ["City100_NikonD5500/001H.PNG", "City100_NikonD5500/001L.PNG"],
        {"City100_NikonD5500/001": ("City100_NikonD5500/001H.PNG", "City100_NikonD5500/001L.PNG")},
        [],
    ),
    "AIM 2020": (
        ["train_HR/000001.png", "train_LR/000001.png", "readme.png"],
        {"train/000001": ("train_HR/000001.png", "train_LR/000001.png")},
        ["1 images whose folder and name say neither"],
    ),
    "DIV2K": (
        [
            "DIV2K_train_HR/0801.png",
            "DIV2K_train_LR_bicubic/X2/0801x2.png",
            "DIV2K_train_LR_bicubic/X4/0801x4.png",
        ],
        {"DIV2K_train/0801": ("DIV2K_train_HR/0801.png", "DIV2K_train_LR_bicubic/X2/0801x2.png")},
        ["1 images of other scales"],
    ),
    "all scales in one LR folder": (
        ["gt/a.png", "lr/a_LR2.png", "lr/a_LR3.png", "gt/b_HR.png", "lr/bx2.png"],
        {"a": ("gt/a.png", "lr/a_LR2.png"), "b": ("gt/b_HR.png", "lr/bx2.png")},
        ["1 images of other scales"],
    ),
    "an ending that is part of the name": (
        ["HR/zoom_x4.png", "LR/zoom_x4.png", "HR/zoom.png", "LR/zoom.png"],
        {"zoom": ("HR/zoom.png", "LR/zoom.png"), "zoom_x4": ("HR/zoom_x4.png", "LR/zoom_x4.png")},
        [],
    ),
    "parts": (
        ["lake/HR/1.png", "lake/LR/1.png", "HR/town/1.png", "LRx2/town/1.png", "HR/.trash/1.png"],
        {"lake/1": ("lake/HR/1.png", "lake/LR/1.png"), "town/1": ("HR/town/1.png", "LRx2/town/1.png")},
        [],
    ),
    "letter case": (
        ["HR/IMG_1.PNG", "LRx2/img_1.png", "HR/Trip/2.png", "LRx2/trip/2.PNG", "hr/A.png", "lr/a.png"],
        {
            "IMG_1": ("HR/IMG_1.PNG", "LRx2/img_1.png"),
            "Trip/2": ("HR/Trip/2.png", "LRx2/trip/2.PNG"),
            "A": ("hr/A.png", "lr/a.png"),
        },
        [],
    ),
    "two names that differ in case alone": (
        ["HR/a.png", "HR/A.png", "LRx2/A.png", "LRx2/a.png"],
        {"A": ("HR/A.png", "LRx2/A.png"), "a": ("HR/a.png", "LRx2/a.png")},
        [],
    ),
    "DIV2K, cut by BasicSR": (
        [
            "DIV2K_train_HR_sub/0001_s001.png",
            "DIV2K_train_LR_bicubic/X2_sub/0001_s001.png",
            "DIV2K_train_LR_bicubic/X3_sub/0001_s001.png",
        ],
        {
            "DIV2K_train/0001_s001": (
                "DIV2K_train_HR_sub/0001_s001.png",
                "DIV2K_train_LR_bicubic/X2_sub/0001_s001.png",
            )
        },
        ["1 images of other scales"],
    ),
    "words that are joined": (
        ["ValidationGT/1.png", "ValidationLR/1.png", "TrainGT/1.png", "TrainLRx2/1.png"],
        {
            "Train/1": ("TrainGT/1.png", "TrainLRx2/1.png"),
            "Validation/1": ("ValidationGT/1.png", "ValidationLR/1.png"),
        },
        [],
    ),
    "the split behind the role": (
        ["HR_train/1.png", "LR_train/1.png", "HR_valid/1.png", "LR_valid_x2/1.png"],
        {
            "train/1": ("HR_train/1.png", "LR_train/1.png"),
            "valid/1": ("HR_valid/1.png", "LR_valid_x2/1.png"),
        },
        [],
    ),
    "Set5 of BasicSR": (
        ["Set5/GTmod12/baby.png", "Set5/LRbicx2/baby.png", "Set5/LRbicx3/baby.png"],
        {"Set5/baby": ("Set5/GTmod12/baby.png", "Set5/LRbicx2/baby.png")},
        ["1 images of other scales"],
    ),
    "the scale's own folder first": (
        ["HR/1.png", "LR/1.png", "LRx2/1.png"],
        {"1": ("HR/1.png", "LRx2/1.png")},
        [],
    ),
}


@pytest.mark.parametrize("habit", HABITS)
def test_habits_of_published_sets(tmp_path: Path, habit: str) -> None:
    files, expected, notes = HABITS[habit]
    found = find_pairs(lay_out(tmp_path, *files), 2)
    assert table(tmp_path, found) == expected
    assert len(found.notes) == len(notes)
    for note, words in zip(found.notes, notes, strict=True):
        assert words in note
    if habit != "the scale's own folder first":
        assert found.excluded == []


def test_a_test_folder_itself_is_used(tmp_path: Path) -> None:
    lay_out(tmp_path, "Test/2/Nikon_001_HR.png", "Test/2/Nikon_001_LR2.png")
    assert list(table(tmp_path, find_pairs(tmp_path, 2))) == ["Test/2/Nikon_001"]


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        "HR/1.png",
        "LR/1.png",
        "HR/2.png",
        "LR/3.png",
        "HR/4.png",
        "HR/4.jpg",
        "LR/4.png",
        "LR/4_LR2.png",
    )
    found = find_pairs(tmp_path, 2)
    assert table(tmp_path, found).keys() == {"1", "4"}
    assert {exclusion.line for exclusion in found.excluded} == {
        "HR/2.png: excluded, an HR image must have an LR image of its name, but LR has no 2",
        "LR/3.png: excluded, an LR image must have an HR image of its name, but HR has no 3",
        "HR/4.png: excluded, an image's name must differ from the others', but it is that of HR/4.jpg",
        "LR/4_LR2.png: excluded, an image's name must differ from the others', but it is that of LR/4.png",
    }


def test_links_must_not_lead_out(tmp_path: Path) -> None:
    outside = lay_out(tmp_path / "outside", "1.png", "2.png")
    source = lay_out(tmp_path / "pairs", "HR/0.png", "LRx2/0.png", "LRx2/1.png")
    (source / "HR" / "1.png").symlink_to(outside / "1.png")
    (source / "HR" / "2.png").symlink_to(source / "HR" / "0.png")
    (source / "LRx2" / "2.png").symlink_to("0.png")
    (source / "LRx3").symlink_to(outside)
    (source / "HR" / "loop").symlink_to(source)
    found = find_pairs(source, 2)
    assert table(source, found).keys() == {"0", "2"}
    lines = {exclusion.file: exclusion for exclusion in found.excluded}
    assert lines.keys() == {"HR/1.png", "LRx3", "LRx2/1.png"}
    assert lines["HR/1.png"].rule == lines["LRx3"].rule == "inside"
    assert lines["HR/1.png"].why == (
        f"it must lie in the folder, but is a link that leads out of it, to {outside / '1.png'}"
    )
    link = tmp_path / "link"
    link.symlink_to(source)
    assert table(link, find_pairs(link, 2)).keys() == {"0", "2"}  # the folder itself may be a link


def test_odd_names_are_names(tmp_path: Path) -> None:
    """Two spellings of one letter meet; what is no text, or more than a line, is told in one line of it."""
    composed, apart = "Café: 1", unicodedata.normalize("NFD", "Café: 1")
    lay_out(tmp_path, f"HR/{composed}.png", f"LRx2/{apart}.png", "HR/two\nlines.png", "LRx2/two\nlines.png")
    raw = os.fsencode(tmp_path / "HR") + b"/\xff [red].png"
    with open(raw, "wb"):
        pass
    found = find_pairs(tmp_path, 2)
    assert [pair.name for pair in found.pairs] == [composed, "two\\nlines"]
    assert [exclusion.file for exclusion in found.excluded] == ["HR/\\xff [red].png"]
    assert printable("a/b c.png") == "a/b c.png"


def test_layouts_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match="must exist, but there is none"):
        find_pairs(tmp_path / "none", 2)
    with pytest.raises(PairsError, match="but got no folders with 0 HR and 0 LR images"):
        find_pairs(lay_out(tmp_path, "a.png", "b.png"), 2)
    lay_out(tmp_path, "HR/a.png", "LRx3/a.png")
    with pytest.raises(
        PairsError, match=r"must hold HR and LRx2 \(or LR\), .*, but got HR, LRx3 with 1 HR and 0 LR"
    ):
        find_pairs(tmp_path, 2)


def test_hr_alone(tmp_path: Path) -> None:
    def names(*files: str) -> list[str]:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        return [pair.name for pair in find_hr(lay_out(root, *files)).pairs]

    assert names("a.png", "trip/b.jpg", "notes.txt", ".c.png") == ["a", "trip/b"]
    assert names("HR/a.png", "LRx2/a.png", "other.png") == ["a"]
    assert names("Canon_001_HR.png", "Canon_001_LR2.png", "more_x2.png") == ["Canon_001_HR", "more_x2"]
    root = lay_out(tmp_path / "twice", "a.jpg", "a.png")
    assert [exclusion.line for exclusion in find_hr(root).excluded] == [
        "a.png: excluded, an image's name must differ from the others', but it is that of a.jpg"
    ]
    with pytest.raises(PairsError, match="must hold at least one image, but got none"):
        names("notes.txt")
