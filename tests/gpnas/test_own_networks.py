"""Networks of one's own in a space file: from the page that describes them to a bundle."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from gpnas import Architecture, SpaceError
from gpnas.bundle import Member, read_bundle, write_bundle
from gpnas.cli import main
from gpnas.config import read_space_file
from gpnas.dispatch.final import FinalRequest, plan_final
from gpnas.ensemble import load_networks
from gpnas.errors import BundleError, JournalError, TrialError
from gpnas.journal import Journal
from gpnas.networks import declare_networks
from gpnas.run.networks import check_networks, own_networks, taken_up
from gpnas.run.pricing import priced, searched_space
from gpnas.run.setup import Data, OwnNetwork, Setup
from gpnas_trainers import cost, families
from gpnas_trainers.families import build, declare
from gpnas_trainers.own import Code, own_family
from gpnas_trainers.recipe import Recipe
from tests.builders import description, folder_of_pairs
from tests.gpnas.driven import ended, finished
from tests.gpnas.searched import searched
from tests.test_documentation import ROOT, blocks

PAGE = ROOT / "docs/own-networks.md"
NETWORK, SPACE = blocks(PAGE, "python")[0], blocks(PAGE, "yaml")[0]
QUICK = SPACE.replace("steps: 300, batch_size: 8", "steps: 8, batch_size: 2, ms_ssim_weight: 0")


def written(folder: Path, network: str = NETWORK, space: str = QUICK) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "nets.py").write_text(network)
    (folder / "mine.yaml").write_text(space)
    return folder / "mine.yaml"


def size(width: int, depth: int) -> int:
    """Parameters of the page's network."""
    return 3 * width * 9 + depth * width**2 * 9 + width * 12 * 9 + (depth + 1) * width + 12


def setup_of(networks: dict[str, OwnNetwork]) -> Setup:
    data = Data(fingerprint="a", validation="b", source="pairs", camera=None)
    return Setup(2, Recipe().to_json(), data, 1, networks=networks)


def test_the_example_is_short() -> None:
    assert len((NETWORK + SPACE).splitlines()) < 30


def test_costs_are_those_of_the_layers(tmp_path: Path) -> None:
    file = read_space_file(written(tmp_path))
    taken_up(file.families.codes, tmp_path / "run", pytest.fail)
    space = priced(file.search_space(), 2)
    place = space.index(Architecture("mine", {"width": 16, "depth": 3}))
    assert space.costs["parameters"][place] == size(16, 3)
    macs = (size(16, 3) - 4 * 16 - 12) * 120**2  # biases are none
    assert space.costs["gmacs"][place] == pytest.approx(macs / 1e9, rel=1e-12)
    # built-in families are beside it, by their formulas
    assert len(space) == 2 * 4 + 2 * 2


def test_limits_and_conditions_narrow_a_family_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = QUICK + "where: mine.width * mine.depth <= 32\nlimits: {parameters: 5000, memory: 1e9}\n"
    assert main(["space", str(written(tmp_path, space=space)), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    kept = [(width, depth) for width in (8, 16) for depth in range(1, 5) if width * depth <= 32]
    small = [each for each in kept if size(*each) <= 5000]
    drn = [cost.parameters("drn", 2, features=f, blocks=1, stages=s) for f in (8, 16) for s in (1, 2)]
    assert [each["excludes"] for each in document["limits"]] == [
        8 - len(kept),
        len(kept) - len(small) + sum(each > 5000 for each in drn),
        0,
    ]
    assert len(small) < len(kept) < 8


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"nets.py:Mine"', '"../nets.py:Mine"', r":3: `families.mine.network`: .*in the folder of the file"),
        ('"nets.py:Mine"', "/etc/nets.py:Mine", r":3: .*must lie in the folder of the file that names it"),
        ('"nets.py:Mine"', "nets.py", r":3: .*must be like nets.py:Mine.*but got 'nets.py'"),
        ('"nets.py:Mine"', "7", r":3: `families.mine.network`: a network must be like nets.py:Mine"),
        ('"nets.py:Mine"', "gone.py:Mine", r":3: .*gone.py: a network's file must be readable.*No such file"),
        ('"nets.py:Mine"', "nonesuch.nets:Mine", r":3: .*nonesuch.nets: must be importable"),
        ("mine:", "my mine:", r":3: .*named by at most 32 letters"),
        ("width: [8", "scale: [8", r":3: `families.mine.scale`: an axis must be an argument"),
        ("width: [8, 16], depth: {low: 1, high: 4}", "", r":3: .*at least one axis"),
        ("mine: {network", "drn2: {netwrok", r"unknown key `families.drn2`.*network: nets.py:Mine"),
        ("drn: {", "drn: {network: 'nets.py:Mine', ", r":4: unknown key `families.drn.network`"),
        ("width: [8", "recipe: {steps: 3}, width: [8", r"unknown key `families.mine.recipe.steps`"),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in QUICK
    with pytest.raises(SpaceError, match=message) as caught:
        read_space_file(written(tmp_path, space=QUICK.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_a_network_that_breaks_the_contract_is_refused_before_the_first_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # only the deepest is wrong
    text = NETWORK.replace("for _ in range(depth)", "scale += depth == 4\n        for _ in range(depth)")
    space = str(written(tmp_path, network=text))
    run = tmp_path / "run"
    for command in (["space", space], ["search", "--space", space, "--run", str(run)]):
        assert main([*command, "--json"]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: nets.py:")
        assert "Mine(scale=2, width=8, depth=4) must" in printed.err
        assert printed.err.count("\n") == 1
    assert not run.exists()


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("while True: pass", r"nets.py:\d+: Mine\(scale=2, width=8, depth=3\) must be done within 10 s"),
        (
            "os._exit(3)",
            r"nets.py:\d+: Mine\(.*depth=3\) must not end its process, but did, with exit code 3",
        ),
        ("os.kill(os.getpid(), 11)", r"nets.py.*: Mine\(.*depth=3\) must not crash Python, but SIGSEGV did"),
        ("os.fork() and os._exit(4)", r"nets.py:\d+: Mine\(.*depth=3\) must not end its process.* code 4"),
        ("raise SystemExit(5)", r"nets.py:\d+: Mine\(.*depth=3\) must have costs.*it called sys.exit\(5\)"),
        (
            "x = 1 / 0",
            r"nets.py:\d+: Mine\(.*depth=3\) must have costs that can be counted, but ZeroDivision",
        ),
    ],
)
def test_a_network_that_does_harm_at_large_images_alone_costs_a_process(
    tmp_path: Path, what: str, told: str
) -> None:
    """What the small images of the contract do not show is met where costs are counted."""
    large = f"if x.shape[-1] > 60 and len(self.body) > 8:\n            {what}\n        return interp"
    text = "import os\n" + NETWORK.replace("return interp", large)
    file = read_space_file(written(tmp_path, network=text))
    taken_up(file.families.codes, tmp_path / "run", pytest.fail)
    with pytest.raises(SpaceError, match=told) as caught:
        check_networks(file.search_space(), 2, file.families.codes, seconds=10)
    assert "\n" not in str(caught.value)


def test_costs_are_counted_in_a_process_of_their_own(tmp_path: Path) -> None:
    """They are those that are counted here, and the source is not run again for them."""
    text = f"import os\nassert os.getpid() != {os.getpid()}\n{NETWORK}"
    file = read_space_file(written(tmp_path, network=text))
    taken_up(file.families.codes, tmp_path / "run", pytest.fail)
    heard: list[tuple[int, int]] = []
    check_networks(
        file.search_space(), 2, file.families.codes, hr_patch=48, progress=lambda *each: heard.append(each)
    )
    space = priced(file.search_space(), 2, {"memory": 1e12}, file.common_recipe)
    here = own_family("mine", Code("nets.py:Mine", NETWORK))
    settings: dict[str, Any] = {"batch_size": 2, "hr_patch": 48, "ms_ssim": False}
    for depth in range(1, 5):
        axes = {"width": 8, "depth": depth}
        place = space.index(Architecture("mine", axes))
        assert space.costs["parameters"][place] == size(8, depth)
        assert space.costs["gmacs"][place] == cost.gmacs(here, 2, 120, 120, **axes)
        wanted = settings | axes
        assert cost.training_memory("mine", 2, **wanted) == cost.training_memory(here, 2, **wanted)


def test_what_a_network_prints_stays_out_of_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = NETWORK.replace("super()", "print('building'); super()")
    assert main(["space", str(written(tmp_path, network=text)), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["families"]["mine"]
    assert "building" not in printed.err  # it was said in a process of its own


def test_a_run_goes_on_with_the_source_that_it_began_with(tmp_path: Path) -> None:
    file = read_space_file(written(tmp_path))
    codes = taken_up(file.families.codes, tmp_path / "run", pytest.fail)
    space = priced(file.search_space(), 2)
    setup = setup_of(own_networks(space, 2, codes))
    run = searched(tmp_path / "run", trials=2, space=space, setup=setup.to_json())
    lines: list[str] = []
    changed = NETWORK.replace("nn.ReLU()", "nn.GELU()")
    file = read_space_file(written(tmp_path, network=changed))
    again = taken_up(file.families.codes, run, lines.append)
    assert again["mine"].text == NETWORK
    assert len(lines) == 1
    assert lines[0].startswith("nets.py has changed since")
    assert "ReLU" in str(build("mine", 2, width=8, depth=1))
    # its costs are read, and no source is run, where a run is only looked at
    declare(own_family("mine", Code("nets.py:Mine", "raise AssertionError")))
    with Journal.read(run) as journal:
        found = searched_space(journal)
    assert {name: costs.tolist() for name, costs in found.costs.items()} == {
        name: costs.tolist() for name, costs in space.costs.items()
    }


def test_a_source_in_a_journal_has_its_checksum(tmp_path: Path) -> None:
    own = OwnNetwork.of(Code("nets.py:Mine", NETWORK), {"width=8,depth=1": (10, 0.5)})
    setup = setup_of({"mine": own})
    document = setup.to_json()
    assert "networks" not in replace(setup, networks={}).to_json()
    document["networks"]["mine"]["text"] += "import os\n"
    run = searched(tmp_path / "run", trials=1, setup=document)
    with Journal.read(run) as journal, pytest.raises(JournalError, match="must have its SHA-256"):
        Setup.of(journal)
    assert asdict(own)["sha256"] == Code("nets.py:Mine", NETWORK).sha256


def test_few_networks_have_every_value_of_every_axis(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tried_here = "__import__('torch').empty(0).device.type == 'cpu'"  # costs are counted on the meta device
    noting = f"{tried_here} and print(width, depth, file=open({str(log)!r}, 'a')); super()"
    file = read_space_file(written(tmp_path, network=NETWORK.replace("super()", noting, 1)))
    codes = taken_up(file.families.codes, tmp_path / "run", pytest.fail)
    check_networks(file.search_space(), 2, codes)
    tried = [line.split() for line in log.read_text().splitlines()]
    assert {width for width, _ in tried} == {"8", "16"}
    assert {depth for _, depth in tried} == {"1", "2", "3", "4"}
    assert len(tried) < 8


def test_a_journal_holds_what_a_source_imports_from_beside_it(tmp_path: Path) -> None:
    head, rest = NETWORK.split("\n\n\n", 1)
    file = read_space_file(written(tmp_path, network=f"from parts import *\n\n\n{rest}"))
    (tmp_path / "parts.py").write_text(f"{head}\n")
    file = read_space_file(tmp_path / "mine.yaml")
    code = file.families.codes["mine"]
    assert code.files == {"parts.py": f"{head}\n"}
    document = setup_of({"mine": OwnNetwork.of(code, {})}).to_json()
    with Journal.read(searched(tmp_path / "run", trials=1, setup=document)) as journal:
        assert Setup.of(journal).networks["mine"].code == code
    assert build("mine", 2, width=8, depth=1)
    (tmp_path / "parts.py").write_text("raise AssertionError\n")
    lines: list[str] = []
    changed = read_space_file(tmp_path / "mine.yaml").families.codes
    assert taken_up(changed, tmp_path / "run", lines.append)["mine"] == code
    assert len(lines) == 1
    document["networks"]["mine"]["files"]["parts.py"] += "import os\n"
    run = searched(tmp_path / "tampered", trials=1, setup=document)
    with Journal.read(run) as journal, pytest.raises(JournalError, match="must have its SHA-256"):
        Setup.of(journal)


def test_networks_that_a_person_chose_are_trained_with_the_source_that_is_named(
    tmp_path: Path, home: Path
) -> None:
    written(tmp_path)
    source, run = str(tmp_path / "nets.py:Mine"), tmp_path / "run"
    chosen = ("mine:width=8,depth=1", "drn:features=4,blocks=1,stages=1")
    request = FinalRequest(architectures=chosen, networks=(source,), run=run)
    plan = plan_final(request, pytest.fail)
    own = plan.setup.networks["mine"]
    assert own.text == NETWORK
    assert own.costs["width=8,depth=1"][0] == size(8, 1)
    for networks, architectures, message in (
        ((), chosen, "--architecture mine: a family must be built in .*mine=nets.py:Mine"),
        ((f"other={source}",), chosen, "is of other; write it as family="),
        ((source, source), chosen, "but is of mine"),
        ((str(tmp_path / "gone.py:Mine"),), chosen, "gone.py:Mine: gone.py: .*must be readable"),
        ((source,), ("mine:width=8",), r"nets.py:6: must be callable as Mine\(scale=2, width=8\)"),
        ((source,), chosen[1:], "one family among none that"),
    ):
        with pytest.raises(SpaceError, match=message):
            plan_final(replace(request, networks=networks, architectures=architectures), pytest.fail)
    with pytest.raises(TrialError, match="a run trains its networks with the source that it began with"):
        plan_final(FinalRequest(search=run, networks=(source,)), pytest.fail)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of one network of the page's, and of one with a buffer that is padded."""
    torch.manual_seed(0)
    declare(own_family("mine", Code("nets.py:Mine", NETWORK)))
    members = []
    for place, axes in enumerate(({"width": 8, "depth": 1}, {"width": 4, "depth": 2})):
        state = build("mine", 2, **axes).state_dict()
        state = {name: value + 0.01 * torch.randn_like(value) for name, value in state.items()}
        members.append(Member(Architecture("mine", axes), state, 0.5, {"psnr": 20.0}, f"c{place:04d}"))
    source = {"network": "nets.py:Mine", "sha256": Code("nets.py:Mine", NETWORK).sha256}
    write_bundle(tmp_path / "bundle", members, description(networks={"mine": source}))
    families._OWN.clear()
    written(tmp_path / "theirs")
    return tmp_path / "bundle"


def test_a_bundle_is_used_with_the_source_that_its_user_names(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = bundle.parent / "theirs" / "nets.py", bundle.parent
    data, picture = folder_of_pairs(folder / "pairs"), folder / "pairs" / "LRx2" / "0.png"
    uses = [
        ["evaluate", bundle, "--data", data, "--no-tiles", "--no-self-ensemble"],
        ["upscale", bundle, picture, "-o", folder / "sr.png", "--no-self-ensemble"],
        ["convert", bundle, "average", "-o", folder / "average.onnx"],
    ]
    for use in uses:
        assert main([str(each) for each in use]) == 1
        printed = capsys.readouterr()
        assert "name nets.py by --networks nets.py (SHA-256" in printed.err, printed
        assert main([str(each) for each in (*use, "--networks", source)]) == 0, capsys.readouterr()
        families._OWN.clear()
        capsys.readouterr()
    # the average is that of the networks, built from the source by hand
    namespace: dict[str, Any] = {}
    exec(NETWORK, namespace)
    lr = torch.from_numpy(np.asarray(Image.open(picture))).permute(2, 0, 1)[None] / 255
    total = torch.zeros(1, 3, 60, 68)
    for member in read_bundle(bundle).members:
        network = namespace["Mine"](scale=2, **member.architecture.axes).eval()
        network.load_state_dict(dict(member.state))
        with torch.no_grad():
            total += network(lr).clamp(0, 1) / 2
    found = torch.from_numpy(np.asarray(Image.open(folder / "sr.png"))).permute(2, 0, 1)[None]
    assert ((total * 255).round() - found).abs().max() <= 1
    session = onnxruntime.InferenceSession(folder / "average.onnx", providers=["CPUExecutionProvider"])
    assert np.abs(session.run(["sr"], {"lr": lr.numpy()})[0] - total.numpy()).max() < 1e-4


def test_another_source_is_told_and_one_that_does_not_fit_is_refused(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_bundle(bundle)
    source = bundle.parent / "theirs" / "nets.py"
    source.write_text("# a note\n" + NETWORK)
    lines: list[str] = []
    declare_networks(found, [str(source)], lines.append)
    assert len(lines) == 1
    assert "is not the source that mine was trained with" in lines[0]
    assert len(load_networks(found)) == 2
    for text, message in (
        (NETWORK.replace("range(depth)", "range(depth + 1)"), "weights must fit their architecture"),
        (NETWORK.replace("class Mine", "class Other"), "must have a class or function `Mine`"),
        (NETWORK.replace("import nn", "import nonesuch"), r"nets.py:1: must be importable, but ImportError"),
    ):
        source.write_text(text)
        with pytest.raises(BundleError, match=message):  # noqa: PT012 - some tell it here, some there
            declare_networks(found, [str(source)])
            load_networks(found)
    with pytest.raises(BundleError, match=r"--networks nonesuch.py: .*must be readable"):
        declare_networks(found, ["nonesuch.py"])
    families._OWN.clear()
    page = bundle.parent / "report.html"
    assert main(["report", str(bundle), "-o", str(page)]) == 0, capsys.readouterr()
    assert "There are no pictures of its networks: mine" in page.read_text()
    source.write_text("# a note\n" + NETWORK)
    assert main(["report", str(bundle), "-o", str(page), "--networks", str(source)]) == 0
    assert "There are no pictures" not in page.read_text()
    assert "is not the source that mine was trained with" in page.read_text()


def test_a_bundle_that_names_code_of_the_machine_runs_none(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a manifest names is never imported, whatever it is."""
    state = {"weight": torch.zeros(1)}
    member = Member(Architecture("mine", {"cmd": "touch ran"}), state, 1.0, {}, None)
    source = {"network": "os:system", "sha256": "0" * 64}
    monkeypatch.chdir(bundle.parent)
    write_bundle(bundle.parent / "evil.zip", [member], description(networks={"mine": source}))
    found = read_bundle(bundle.parent / "evil.zip")
    with pytest.raises(BundleError, match="need their source"):
        load_networks(found)
    with pytest.raises(BundleError, match="must have a class or function `system`"):
        declare_networks(found, ["theirs/nets.py"])
    assert not (bundle.parent / "ran").exists()


@pytest.fixture(scope="module")
def run(home: Path, cluster: str) -> Path:
    """A search of networks of one's own alone, gone on with after their file has changed, and trained on."""
    only = "\n".join(line for line in QUICK.splitlines() if "drn:" not in line)
    space, folder = written(home / "own", space=only), home / "own" / "run"
    search = ["search", "--space", str(space), "--run", str(folder), "--strategy", "random", "--json"]
    search += ["--no-early-stopping", "--address", cluster, "--concurrent", "1", "--trials"]
    assert finished([*search, "2"])["trials"]["observed"] == 2
    written(home / "own", network="raise AssertionError('a later one')\n", space=only)
    code, _, err = ended([*search, "3"])
    assert (code, "nets.py has changed since" in err) == (0, True), err
    return folder


@pytest.mark.ray
def test_the_example_is_searched_gone_on_with_and_trained_to_the_end(run: Path, cluster: str) -> None:
    with Journal.read(run) as journal:
        assert all(each.finished for each in journal.observations())
        assert Setup.of(journal).networks["mine"].text == NETWORK
    document = finished(["train", str(run), "--address", cluster, "--top", "1", "--steps", "4", "--json"])
    assert document["trials"] == {"observed": 1, "failed": 0, "stopped": 0}
    bundle, source = run / "final" / "bundle", run.parent / "original.py"
    source.write_text(NETWORK)
    evaluate = ["evaluate", str(bundle), "--no-tiles", "--networks", str(source), "--json"]
    evaluated = finished(evaluate)
    assert [each["family"] for each in evaluated["rows"][0]["members"]] == ["mine"]
    for other in ("status", "explain", "portfolio"):
        assert finished([other, str(run), "--json"])
