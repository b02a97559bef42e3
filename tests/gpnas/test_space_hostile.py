"""Space files, recipes and tables that are wrong, or meant to harm: one line, soon, in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpnas import Architecture, SearchSpace, load_space
from gpnas.config import read_recipe_file, read_space_file
from gpnas.config.yaml12 import REPEATED, YamlError, parse
from gpnas.errors import LONGEST, SpaceError
from gpnas.space import CategoricalAxis, Family, IntegerAxis

SOUND = "scale: 2\nfamilies:\n  drn: {features: [8, 16], blocks: 2, stages: 1}\n"


def refusal(path: Path, line: int | None = None) -> str:
    with pytest.raises(SpaceError) as error:
        read_space_file(path)
    text = str(error.value)
    assert text.startswith(f"{path}:{line}:" if line else f"{path}:"), text
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    assert len(text) <= LONGEST
    return text


@pytest.mark.parametrize(
    ("text", "value"),
    [  # YAML 1.2.2, section 10.3.2; what is no number, truth or nothing there is text
        ("010", 10), ("0o10", 8), ("0x1F", 31), ("+12", 12), ("-3", -3), ("1e3", 1000.0), ("2e-4", 2e-4),
        (".5", 0.5), ("1.", 1.0), ("-.inf", float("-inf")), ("True", True), ("FALSE", False), ("~", None),
        ("Null", None), ("", None), ("1:30", "1:30"), ("1_000", "1_000"), ("0b11", "0b11"), ("yes", "yes"),
        ("off", "off"), ("N", "N"), ("2001-01-01", "2001-01-01"), ("tRuE", "tRuE"), ("'7'", "7"),
        ("!!str 7", "7"), ("!!float 3", 3.0), ("!!int '7'", 7), ("-0x1", "-0x1"), ("1e", "1e"), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    read = parse(f"a: {text}\n")[0]["a"]
    assert (type(read), read) == (type(value), value)


def test_leading_zeros_are_decimal_and_sixties_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SOUND.replace("[8, 16]", "{low: 010, high: 040, step: 8}"))
    assert load_space(path).families[0].axes[0].values == (10, 18, 26, 34)
    path.write_text(SOUND.replace("[8, 16]", "1:30"))
    assert "but got '1:30'" in refusal(path, 3)


BOMB = "\n".join([f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 12)])
MERGES = "\n".join([f"x{n}: &x{n} {{k{n}: 1, <<: [{', '.join([f'*x{n - 1}'] * 9)}]}}" for n in range(1, 12)])
MAPS = "\n".join(
    [f"x{n}: &x{n} {{{', '.join([f'k{k}: *x{n - 1}' for k in range(9)])}}}" for n in range(1, 12)]
)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (SOUND + "? [a, b]\n: 1\n", 4, "a key must be text, but is a list"),
        (SOUND + "? {a: 1}\n: 1\n", 4, "a key must be text, but is a mapping"),
        ("scale: {{ scale }}\n", 1, "template"),
        (SOUND.replace("2\n", "!!int ''\n", 1), 1, "the tag int"),
        (SOUND.replace("2\n", "!!timestamp foo\n", 1), 1, "timestamp' has no meaning here"),
        (SOUND.replace("2\n", "!!python/object/apply:os.system [ls]\n", 1), 1, "has no meaning here"),
        (SOUND.replace("2\n", "!!binary '=='\n", 1), 1, "has no meaning here"),
        (SOUND.replace("16", "9" * 4000), 3, "within 2**62 of 0"),
        (SOUND.replace("16", "0x" + "f" * 4000), 3, "within 2**62 of 0"),
        (SOUND.replace("[8, 16]", "{low: 1, factor: 2, high: 1" + "0" * 3000 + "}"), 3, "within 2**62"),
        (SOUND.replace("[8, 16]", f"{{low: 1, high: {2**61}}}"), 3, "at most 10000 values"),
        (SOUND.replace("[8, 16]", f"{{low: 1, high: {2**61}, step: 1000}}"), 3, "at most 10000 values"),
        ("x0: &x0 [1, 1]\n" + BOMB, None, f"repeat more than {REPEATED:,} values"),
        ("x0: &x0 {a: 1}\n" + MAPS, None, f"repeat more than {REPEATED:,} values"),
        ("x0: &x0 {a: 1}\n" + MERGES, None, f"repeat more than {REPEATED:,} values"),
        ("a: &a [*a]\n", 1, "nests deeper"),
        ("a: " + "[" * 3000 + "]" * 3000, 1, "nests deeper"),
        (SOUND + "where: [" + ", ".join(["features > 1"] * 20_000) + "]\n", 4, "at most 50 items"),
        (SOUND + "'\x1b[31m\\n': 1\n", None, ""),
        (SOUND + "limits: {gmacs: .nan}\n", 4, "gmacs"),
        (SOUND + "scale: 2\n", 4, "given twice"),
        (SOUND + "---\nscale: 3\n", None, "second document"),
        (SOUND.replace("[8, 16]", "[8, 16, &x 4, *x]"), 3, "must differ"),
        (SOUND.replace("drn", "é" * 900), 3, "unknown key"),
        ("[" * 100_000, None, "valid YAML"),
        ("x: " + "y" * 5_000_000, None, "at most"),
        ("\0", None, "valid YAML"),
        ("- 1\n", None, "must be a mapping"),
        ("", None, "must be a mapping"),
    ],
)  # fmt: skip
def test_a_hostile_file_is_refused_in_one_line(
    tmp_path: Path, text: str, line: int | None, says: str
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    assert says in refusal(path, line)


ODD = [
    "1", "010", "-5", "1e400", ".nan", "~", "true", "yes", "''", "x", "!!int ''", "!!set {a}", "{{ x }}",
    "*a", "&a 3", "9" * 50, "[8, 16]", "{low: 1, high: 3}", "{choices: [a, 2.5]}", "? [a]", "<<", '"\\x1b"',
    "2:30",
    "features * 3 <= 9", "drn", "features", "{table: t.csv}", "{architectures: [{features: 1}]}", "|\n x",
]  # fmt: skip
INNER = st.sampled_from(["low", "high", "factor", "step", "table", "<<", "features", "? [a]"])
VALUES = st.recursive(
    st.sampled_from(ODD),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
        | st.dictionaries(INNER, inner, max_size=3).map(
            lambda parts: f"{{{', '.join(f'{key}: {value}' for key, value in parts.items())}}}"
        )
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["scale", "families", "where", "equivalent", "limits", "search", "recipe", "camera", "x", "<<", "? [a]"]
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(KEYS, VALUES), max_size=4), st.booleans())
def test_any_file_is_read_or_refused_in_one_line(
    tmp_path: Path, entries: list[tuple[str, str]], sound: bool
) -> None:
    text = (SOUND if sound else "") + "".join(f"{key}: {value}\n" for key, value in entries)
    (tmp_path / "t.csv").write_text("features,blocks,stages\n8,1,1\n")
    path = tmp_path / "space.yaml"
    path.write_text(text)
    for read in (read_space_file, read_recipe_file):
        said = str(path)
        try:
            read(path)
        except SpaceError as error:
            said = str(error)
        assert len(said.splitlines()) == 1
        assert said.startswith(str(path))


@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    line = 1
    try:
        parse(text)
    except YamlError as error:
        line = error.line
    assert line >= 1


TABLES = [
    "", "\n", "features,blocks\n8,1\n", "features,features,stages\n8,1,1\n", "features,blocks,stages\n8,1\n",
    "features,blocks,stages\n8,,1\n", "features,blocks,stages\n8,x,1\n", 'features,blocks,stages\n"8,1,1\n',
    "features,blocks,stages\n" + "9" * 5000 + ",1,1\n", "features,blocks,stages\n8,1,1e400\n", "\0,b\n",
    "features,blocks,stages,,\n8,1,1,1,1\n", "features,blocks,stages\n-8,1,1\n",
    "features,blocks,stages\n8.5,1,1\n",
    "features,blocks,stages\n" + "".join(f"{n + 1},1,1\n" for n in range(10_001)),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(TABLES)))
def test_a_hostile_table_is_refused_in_one_line(tmp_path: Path, number: int) -> None:
    (tmp_path / "t.csv").write_text(TABLES[number])
    path = tmp_path / "space.yaml"
    path.write_text("scale: 2\nfamilies:\n  drn: {table: t.csv}\n")
    with pytest.raises(SpaceError) as error:
        read_space_file(path)
    assert len(str(error.value).splitlines()) == 1
    assert str(tmp_path) in str(error.value)
    assert len(str(error.value)) <= LONGEST


@pytest.mark.parametrize("name", ["../t.csv", "/etc/passwd", "x" * 5000, "a\\0b", ".", "missing.csv"])
def test_a_tables_name_is_checked(tmp_path: Path, name: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(f'scale: 2\nfamilies:\n  drn: {{table: "{name}"}}\n')
    assert "a table must" in refusal(path, 3)


def test_a_device_or_a_pipe_is_no_space_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(SpaceError):
            read_space_file(path)


MANY = """
import resource, sys
from pathlib import Path
from gpnas.config import load_space
folder = Path(sys.argv[1])
with (folder / "t.csv").open("w") as file:
    file.write("features,blocks,stages,image_skip\\n")
    for n in range(200_000):
        file.write(f"{4 + n % 100},{1 + n // 100 % 100},{1 + n // 10000},{'true' if n % 2 else 'false'}\\n")
(folder / "space.yaml").write_text("scale: 2\\nfamilies:\\n  drn: {table: t.csv}\\n")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
space = load_space(folder / "space.yaml")
print(len(space), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 200_000)
"""


def test_a_long_table_takes_few_bytes_a_row(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    rows, per_row = done.stdout.split()
    assert int(rows) == 200_000
    assert float(per_row) < 400


# -- tables in Python


def test_a_table_of_27_axes_is_indexed_by_row() -> None:
    generator = np.random.default_rng(0)
    drawn = generator.integers(1, 7, (2503, 27)).tolist()
    rows = [{f"axis{place}": value for place, value in enumerate(row)} for row in drawn]
    space = SearchSpace.from_table(rows)
    assert space.families[0].spanned > 2**63
    assert len(space) == len({tuple(row) for row in drawn})
    # the order of a product: by the values, the last axis fastest
    assert [tuple(each.axes.values()) for each in space] == sorted({tuple(row) for row in drawn})
    for row in rows[::50]:
        architecture = Architecture("table", row)
        assert space[space.index(architecture)] == architecture
    assert Architecture("table", dict.fromkeys(rows[0], 1)) not in space
    again = SearchSpace.from_document(space.to_document())
    assert again.fingerprint == space.fingerprint
    assert list(again) == list(space)
    part = space.where("axis0 <= 3")
    assert [each for each in space if int(each.axes["axis0"]) <= 3] == list(part)
    assert list(SearchSpace.from_document(part.to_document())) == list(part)


def test_values_of_numpy_are_pythons() -> None:
    plain: list[Any] = [
        {"n": n, "kind": "ab"[n % 2], "on": n > 2, "rate": n / 4, "cost": n + 0.5} for n in range(1, 5)
    ]
    of_numpy: list[Any] = [
        {
            np.str_("n"): np.int32(row["n"]),
            "kind": np.str_(row["kind"]),
            "on": np.bool_(row["on"]),
            "rate": np.float32(row["rate"]),
            "cost": np.float64(row["cost"]),
        }
        for row in plain
    ]
    spaces = [SearchSpace.from_table(rows, costs=["cost"]) for rows in (plain, of_numpy)]
    assert spaces[0].fingerprint == spaces[1].fingerprint
    assert spaces[0].to_document() == spaces[1].to_document()
    assert isinstance(spaces[1].families[0].axes[0], IntegerAxis)
    assert Architecture("table", of_numpy[0]) == Architecture("table", plain[0])
    axes = (IntegerAxis("n", tuple(np.arange(1, 5))), CategoricalAxis("kind", tuple(np.array(["a", "b"]))))
    same = (IntegerAxis("n", (1, 2, 3, 4)), CategoricalAxis("kind", ("a", "b")))
    assert SearchSpace([Family("f", axes)]).fingerprint == SearchSpace([Family("f", same)]).fingerprint


def test_rows_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [1, 2, 3], "kind": ["a", "b", "a"], "on": [True, False, True]})
    plain: list[Any] = [
        {"n": 1, "kind": "a", "on": True},
        {"n": 2, "kind": "b", "on": False},
        {"n": 3, "kind": "a", "on": True},
    ]
    wanted = SearchSpace.from_table(plain).fingerprint
    assert SearchSpace.from_table(frame.to_dict("records")).fingerprint == wanted
    assert SearchSpace.from_table(row for _, row in frame.iterrows()).fingerprint == wanted
    with pytest.raises(SpaceError, match=r"give `table.to_dict\('records'\)`"):
        SearchSpace.from_table(frame)
    frame.loc[1, "kind"] = None
    with pytest.raises(SpaceError, match="row 1: `kind` must be"):
        SearchSpace.from_table(frame.to_dict("records"))


@pytest.mark.parametrize("odd", [None, float("nan"), [1], {"a": 1}, object(), 2**70, b"x", 1j])
def test_a_value_that_is_none_is_named(odd: Any) -> None:
    with pytest.raises(SpaceError) as error:
        SearchSpace.from_table([{"n": 1}, {"n": odd}])
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["a:\n\tb: 1\n", "a:\r\r\r\n\tb: 1", "a:\u2028\u2028\u2028\tb: {"])
def test_a_tab_is_named_wherever_lines_end(text: str) -> None:
    with pytest.raises(YamlError, match="it may be a tab: indent with spaces"):
        parse(text)
