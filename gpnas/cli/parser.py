"""The commands and their options; a test holds them.

A command is the module of `gpnas.cli` that its `module` names, imported once it is called: what one command
needs, no other waits for.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from gpnas.cli.arguments import (
    above_zero,
    add_allowance,
    add_bundle,
    add_levels,
    add_networks,
    add_output,
    add_run,
    add_trials,
    flag,
    natural,
    number,
    path,
    positive,
    repeatable,
    switch,
    whole,
)
from gpnas.cli.service import add_serve, add_token, add_worker
from gpnas.cli.text import printable
from gpnas.files import did_you_mean
from gpnas.records import STRATEGIES
from gpnas_trainers.recipe import rules

SHELLS = ("bash", "zsh", "fish")
OWN_RUN = "run folder of a loop of your own"


class Parser(argparse.ArgumentParser):
    """A parser whose errors name the nearest command or option and never command the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("type", int, whole)  # which says what is wrong with a number
        self.register("type", float, number)

    def error(self, message: str) -> NoReturn:
        if wrong := re.search(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message):
            message = f"there is no command {wrong[1]!r}"
            message += did_you_mean(wrong[1], re.findall(r"[a-z]+", wrong[2]))
        super().error(printable(message))

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """What argparse makes of arguments; for an option that there is not, the command's own parser names
        the nearest."""
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            command = getattr(parsed, "parser", self)
            known = [option for action in command._actions for option in action.option_strings]
            wrong = rest[0].partition("=")[0]
            command.error(f"there is no place for {' '.join(rest)!r}{did_you_mean(wrong, known)}")
        return parsed


class Commands:
    """Commands beneath a parser; each gets what all share."""

    def __init__(self, top: argparse.ArgumentParser, prefix: str = "") -> None:
        self._beneath = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
        self._prefix = prefix

    def add(self, name: str, text: str, *examples: str) -> argparse.ArgumentParser:
        """The parser of a command that `gpnas.cli.NAME` runs.

        Args:
            name: of the command.
            text: what it does.
            examples: command lines, without what stands before the command's own arguments.
        """
        sub = self.add_group(name, text)
        called = f"  gpnas {self._prefix}{name}"
        heading = "examples:" if len(examples) > 1 else "example:"
        sub.epilog = "\n".join([heading, *(f"{called} {each}".rstrip() for each in examples)])
        sub.set_defaults(module=name, command=self._prefix + name, parser=sub)
        # beside those before the command, whose value a default here would overwrite
        for option, meaning in SHARED.items():
            sub.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=meaning)
        return sub

    def add_group(self, name: str, text: str) -> argparse.ArgumentParser:
        """A parser that has commands of its own."""
        parser: argparse.ArgumentParser = self._beneath.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        return parser


SHARED = {
    "--json": "print one JSON document on stdout",
    "--verbose": "log everything, with tracebacks",
}
"""Options that may stand before the command as well as after it."""


class _Version(argparse.Action):
    """Prints the version, which takes reading the package's metadata."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from gpnas import __version__

        print(f"gpnas {__version__}")
        parser.exit()


def command_line() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog="gpnas",
        description="Gaussian-process architecture search and heterogeneous ensembles "
        "for real image super-resolution.",
        epilog="`gpnas COMMAND --help` shows a command's options and examples.",
    )
    top.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    for option, meaning in SHARED.items():
        top.add_argument(option, action="store_true", help=meaning)
    commands = Commands(top)
    _add_search(commands)
    _add_status(commands)
    explain = commands.add(
        "explain", "show why a candidate was chosen, or every one in short", "runs/drn best", "runs/drn c0007"
    )
    add_run(explain)
    explain.add_argument(
        "candidate", metavar="CANDIDATE", nargs="?", help="such as c0007, or best (default: all in short)"
    )
    _add_ask(commands)
    _add_tell(commands)
    _add_veto(commands)
    _add_report(commands)
    space = commands.add("space", "show what a space file means", "drn.yaml")
    space.add_argument("space", metavar="FILE", help="a YAML file, or the name of a shipped one")
    flag(space, "own", "it is for a loop of your own, with any family")
    recommend = commands.add(
        "recommend",
        "name the architectures to begin with, from trainings that ship with gpnas",
        "--hours 2",
        "--hours 8 --data pairs/",
    )
    recommend.add_argument(
        "--hours", type=above_zero, required=True, help="of one core, for all trainings together"
    )
    recommend.add_argument("--data", metavar="DIR", type=path, help="pairs (default: shipped photographs)")
    recommend.add_argument("--scale", type=int, choices=(2, 3, 4, 8), default=2, help="(default: 2)")
    _add_data(commands)
    _add_portfolio(commands)
    _add_train(commands)
    _add_export(commands)
    _add_evaluate(commands)
    _add_convert(commands)
    _add_upscale(commands)
    doctor = commands.add(
        "doctor",
        "look at this installation, and at a run folder, a bundle or a folder of runs",
        "",
        "runs/drn",
    )
    doctor.add_argument("path", metavar="PATH", type=path, nargs="?", help="what to check")
    _add_completion(commands)
    add_serve(commands)
    add_token(commands)
    add_worker(commands)
    return top


def _add_status(commands: Commands) -> None:
    status = commands.add("status", "show where a run stands", "runs/drn", "runs/drn --watch")
    add_run(status)
    flag(status, "watch", "go on showing it until its driver ends, as its terminal does")


def _add_completion(commands: Commands) -> None:
    completion = commands.add(
        "completion",
        "print what makes a shell complete commands, options and files",
        "bash > ~/.local/share/bash-completion/completions/gpnas",
        "zsh > ~/.zfunc/_gpnas",
        "fish > ~/.config/fish/completions/gpnas.fish",
    )
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def _add_search(commands: Commands) -> None:
    search = commands.add(
        "search",
        "search architectures, choose a portfolio, write its bundle",
        "--space drn.yaml",
        "--space drn.yaml --data pairs/ --scale 2 --run runs/mine --trials 32",
    )
    option = search.add_argument
    option("--space", required=True, help="a YAML file, or the name of a shipped one")
    option("--data", type=path, help="folder of LR/HR pairs (default: shipped photographs)")
    option("--scale", type=int, help="super-resolution factor (default: the space file's)")
    option("--trials", type=positive, help="trainings granted (default: the space file's)")
    option("--strategy", choices=STRATEGIES, help="how it chooses")
    for name, text in (
        ("cost-aware", "count what a training brings per predicted second"),
        ("portfolio-aware", "value an architecture by what it adds to the ensemble"),
        ("early-stopping", "end trainings that will not matter"),
    ):
        switch(search, name, f"{text} (default: the space file's)")
    repeatable(
        search,
        "warm-start",
        "RUN",
        "a finished search of the same axes, at another scale or on other data, to learn from; `shipped`: "
        "trainings that ship with gpnas",
        type=path,
    )
    option("--seed", type=int, default=0, help="of choices and trainings (default: 0)")
    option("--trial-hours", type=above_zero, help="longest attempt at a training of your own (default: any)")
    option("--run", type=path, help="run folder (default: runs/SPACE); an existing one goes on")
    add_trials(search)


def _add_ask(commands: Commands) -> None:
    ask = commands.add(
        "ask",
        "print the next candidate of a search whose trainings are your own",
        "runs/mine --space mine.yaml --trials 40",
        "runs/mine --worker $SLURM_ARRAY_TASK_ID --shell",
        "runs/mine --architecture drn:features=64,blocks=8,stages=2",
    )
    add_run(ask, OWN_RUN)
    option = ask.add_argument
    option("--space", help="makes the run where it is missing: a YAML file, or a shipped one's name")
    option("--trials", type=positive, help="trainings granted in all; a larger number extends")
    option("--strategy", choices=STRATEGIES, help="how it chooses (default: the space file's)")
    option("--seed", type=int, default=0, help="of choices and trainings (default: 0)")
    option(
        "--worker", metavar="NAME", help="by which who asks is known again (default: SLURM's job and task)"
    )
    option("--lease-hours", type=above_zero, default=24.0, help="given to others after so many (default: 24)")
    flag(ask, "wait", "wait while others train all that is left")
    flag(ask, "shell", 'print variables for `eval "$(…)"`')
    option(
        "--architecture", metavar="NETWORK", help="have this one trained by whoever asks next; print its name"
    )


def _add_tell(commands: Commands) -> None:
    tell = commands.add(
        "tell",
        "tell what a training of your own came to",
        "runs/mine c0007 28.61",
        'runs/mine c0007 --failed "out of memory"',
        "runs/mine c0007 --progress 100 27.9",
        "runs/mine --architecture drn:features=64,blocks=8,stages=2 28.4",
    )
    add_run(tell, OWN_RUN)
    option = tell.add_argument
    option("words", metavar="CANDIDATE VALUE", nargs="*", help="such as c0007 28.61")
    option("--failed", metavar="REASON", help="instead of VALUE: why it cannot be trained")
    option(
        "--progress",
        nargs=2,
        metavar=("STEP", "VALUE"),
        help="instead of VALUE: how far it has come; the answer says continue or stop",
    )
    flag(tell, "give-back", "instead of VALUE: have others train it")
    option(
        "--architecture",
        nargs=2,
        metavar=("NETWORK", "VALUE"),
        help="instead of CANDIDATE VALUE: one that was trained elsewhere",
    )
    option("--lease", metavar="ID", help="the lease that `ask` printed (default: the newest)")
    option("--checkpoint", metavar="ADDRESS", help="of what is trained so far, with --progress")
    option("--seconds", type=float, help="that it took (default: since it was handed out)")
    repeatable(tell, "metric", "NAME=VALUE", "what was measured besides")


def _add_veto(commands: Commands) -> None:
    veto = commands.add(
        "veto", "have an architecture not be trained", "runs/mine drn:features=64,blocks=8,stages=2"
    )
    add_run(veto, OWN_RUN)
    veto.add_argument("architecture", metavar="NETWORK", help="such as drn:features=64,blocks=8,stages=2")


def _add_portfolio(commands: Commands) -> None:
    portfolio = commands.add(
        "portfolio",
        "show which networks of a run belong together, at which cost",
        "runs/drn --top 5 --max-gmacs 100",
    )
    add_run(portfolio)
    add_allowance(portfolio)
    repeatable(
        portfolio,
        "with",
        "NETWORK",
        "repeatable: a network from elsewhere that may join: weights (rcan_x2.pt), other.onnx, or "
        "nets.py:load, which is run",
        dest="guests",
    )
    portfolio.add_argument(
        "--data", type=path, help="folder of the run's pairs, for --with (default: shipped photographs)"
    )
    portfolio.add_argument("-o", "--output", type=path, help="write a bundle of the choice there")


def _add_train(commands: Commands) -> None:
    train = commands.add(
        "train",
        "train a search's portfolio, or chosen networks, to the end",
        "runs/drn --steps 100000",
        "--architecture drn:features=128,blocks=18,stages=3 --scale 4 --data pairs/ --run runs/one",
    )
    option = train.add_argument
    add_run(train, "run folder of a finished search", required=False)
    add_allowance(train)
    repeatable(
        train,
        "architecture",
        "NETWORK",
        "instead of RUN, and repeatable: such as drn:features=128,blocks=18,stages=3",
    )
    add_networks(train, "networks of your own among these, nets.py:Mine or package.module:Mine")
    option("--data", type=path, help="folder of LR/HR pairs (default: the search's, or shipped photographs)")
    option("--scale", type=int, help="of --architecture (default: 2)")
    option("--run", type=path, help="folder of this training (default: RUN/final); an existing one goes on")
    option(
        "--start-from",
        metavar="search|none|PATH",
        help="weights to begin with: the search's, fresh ones, or those of a run or bundle",
    )
    option("--recipe", metavar="FILE", type=path, help="YAML with settings of the recipe")
    for name, rule in rules().items():
        named, choices = f"--{name.replace('_', '-')}", rule.allowed or None
        option(named, type=rule.kind, choices=choices, help=f"recipe: {rule.text}")
    option("--seed", type=int, help="of the trainings (default: the search's)")
    option(
        "--devices", type=positive, default=1, help="GPUs, else CPUs, that share each training (default: 1)"
    )
    flag(train, "tensorboard", "write TensorBoard's event files")
    add_trials(train)


def _add_report(commands: Commands) -> None:
    report = commands.add(
        "report",
        "write a page about a search, for people to read",
        "runs/drn -o report.html",
        "runs/drn runs/mine -o compared.html",
    )
    option = report.add_argument
    option(
        "sources",
        metavar="RUN",
        type=path,
        nargs="+",
        help="run folder, also under way; several; or a bundle",
    )
    option("-o", "--output", type=path, default=path("report.html"), help="the file (default: report.html)")
    add_networks(report)
    option("--data", type=path, help="folder of its pairs, for pictures of the networks at work")
    option(
        "--evaluation",
        metavar="FILE",
        type=path,
        help="what `gpnas evaluate BUNDLE --json` printed: Table 1 (default: what it kept beside the bundle)",
    )


def _add_data(commands: Commands) -> None:
    group = commands.add_group("data", "check folders of LR/HR photographs, and prepare them for training")
    beneath = Commands(group, "data ")
    check = beneath.add("check", "say what of a folder would be left out, and why", "pairs/ --scale 2")
    prepare = beneath.add(
        "prepare",
        "write a checked, split and cached set of pairs",
        "pairs/ --scale 2",
        "photos/ --scale 2 --synthetic",
    )
    for sub in (check, prepare):
        sub.set_defaults(module="data")
        option = sub.add_argument
        option("folder", metavar="DIR", type=path, help="folder of LR/HR pairs")
        option("--scale", type=int, required=True, help="HR pixels per LR pixel")
        option(
            "--ncc", type=float, default=0.99, help="least agreement of LR with HR (default: 0.99; 0: any)"
        )
        option("--max-shift", type=float, help="greatest shift of LR, in LR pixels (default: any)")
        option("--minimum-side", type=positive, default=48, help="smallest HR side, in pixels (default: 48)")
        flag(sub, "downsample-lr", "downsample LR images that are as large as HR (registered captures)")
        flag(sub, "synthetic", "DIR holds HR alone: make LR by the synthetic camera")
        option(
            "--validation", type=positive, help="pairs to hold for validation (default: a fifth, at most 10)"
        )
        option("--seed", type=int, default=0, help="of the split and of the camera (default: 0)")
        option("--workers", type=positive, help="processes (default: one per core)")
    prepare.add_argument(
        "-o", "--output", metavar="CACHE", type=path, help="folder for the set's own (default: the cache)"
    )
    for name, unit in (("kernel", "LR pixels"), ("noise", "8-bit levels")):
        prepare.add_argument(
            f"--{name}-sigma",
            nargs=2,
            type=float,
            metavar=("LOW", "HIGH"),
            help=f"range of the synthetic camera's {name}, in {unit}",
        )


def _add_export(commands: Commands) -> None:
    export = commands.add(
        "export", "write a bundle of a finished search", "runs/drn --top 3 -o best.zip --licence CC-BY-4.0"
    )
    add_run(export)
    add_allowance(export)
    add_output(export, "folder, or file with .zip")
    export.add_argument(
        "--licence",
        metavar="NAME",
        help="of the weights, such as CC-BY-4.0 (default: not stated); the text of a usual one is added",
    )
    export.add_argument("--licence-holder", metavar="NAME", help="of the copyright, which MIT's text names")
    export.add_argument("--licence-file", metavar="FILE", type=path, help="text of the licence, to be added")
    export.add_argument(
        "--picture",
        metavar="DIR",
        type=path,
        help="show a part of a validation image of this folder of pairs in the model card; unasked, only "
        "the shipped photographs are shown",
    )
    flag(export, "no-picture", "show none")


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add(
        "evaluate",
        "measure a bundle: every network, every pair, all",
        "runs/drn/bundle",
        "runs/drn/bundle --data pairs/ --markdown table1.md",
    )
    option = evaluate.add_argument
    add_bundle(evaluate)
    option("--data", type=path, help="folder of LR/HR pairs (default: shipped photographs)")
    add_levels(
        evaluate,
        drop_outlier="also measure the average of all, three or more, without the network that is farthest "
        "from their median at each pixel",
        self_ensemble="also measure averages over eight flips and transposes",
    )
    switch(evaluate, "tiles", "also measure with tiles", default=True)
    option(
        "--channel",
        choices=("rgb", "y"),
        default="rgb",
        help="compare RGB, or the luma of BT.601 in 16 … 235 (default: rgb)",
    )
    option("--border", type=natural, default=0, help="HR pixels dropped on each side first (default: 0)")
    option("--markdown", metavar="FILE", type=path, help="write the tables there as well")


def _add_convert(commands: Commands) -> None:
    convert = commands.add(
        "convert",
        "write networks as ONNX, or under the names of their authors' code",
        "runs/drn/bundle -o onnx/",
        "runs/drn/bundle average -o average.onnx",
    )
    add_bundle(convert)
    convert.add_argument(
        "network", metavar="NETWORK", nargs="?", help="such as network-2, or average (default: each)"
    )
    add_output(
        convert,
        "file with .onnx, or with .safetensors, .pt, .pth for official names; a folder for ONNX of each",
    )


def _add_upscale(commands: Commands) -> None:
    upscale = commands.add(
        "upscale",
        "make super-resolved images",
        "runs/drn/bundle photo.png -o photo_x2.png",
        "runs/drn/bundle photos/ -o large/ --tile 120 --no-self-ensemble",
    )
    add_bundle(upscale)
    upscale.add_argument("inputs", metavar="IN", nargs="+", type=path, help="images, or folders of them")
    add_output(upscale, "a file, or a folder for several")
    add_levels(
        upscale,
        drop_outlier="of three or more networks, leave out at each pixel the one farthest from their median",
        self_ensemble="average over eight flips and transposes",
    )
    flag(
        upscale,
        "convert",
        "make RGB of other images; transparent pixels go on white, of several frames the first is taken",
    )
