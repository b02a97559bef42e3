"""The index of errors: every message that a user can meet, with why and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import (
    EACCES,
    EDQUOT,
    EEXIST,
    EIO,
    EISDIR,
    ELOOP,
    EMFILE,
    ENAMETOOLONG,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOTDIR,
    EPERM,
    EROFS,
    ESTALE,
)
from pathlib import Path

import error_texts
import yaml
from error_texts import ARGUMENTS, FAILURES, FINDINGS, PRINTED, Message, words

SYSTEM = "Errors of the operating system"
SYSTEMS = (
    EACCES, EDQUOT, EEXIST, EIO, EISDIR, ELOOP, EMFILE, ENAMETOOLONG, ENOENT, ENOMEM, ENOSPC, ENOTDIR, EPERM,
    EROFS, ESTALE,
)  # fmt: skip
"""What the operating system may say of a file; the message is its name and this."""
PARSERS = (
    "argument …: expected one argument",
    "argument …: expected … arguments",
    "argument …: expected at least one argument",
    "argument …: ignored explicit argument …",
    "argument …: invalid choice: … (choose from …)",
    "ambiguous option: … could match …",
    "the following arguments are required: …",
)
"""What argparse, which reads a command's arguments, says itself."""
VALIDATORS = (
    "input should be a valid integer",
    "input should be a valid number",
    "input should be a valid boolean",
    "input should be a valid string",
    "input should be a valid list",
    "input should be a valid dictionary",
    "input should be a finite number",
    "input should be greater than …",
    "input should be greater than or equal to …",
    "input should be less than …",
    "input should be less than or equal to …",
    "… should have at least … item… after validation, not …",
    "… should have at most … item… after validation, not …",
    "string should have at least … character…",
    "string should have at most … character…",
    "string should match pattern '…'",
    "field required",
    "extra inputs are not permitted",
)
"""What pydantic, which reads files and requests, says of a key."""

WHY = {
    "SpaceError": (
        "A space file, or a space built in Python, breaks a rule.",
        "Nothing has been trained. Correct the line that the message names; `gpnas space FILE` shows what a "
        "file means before anything is trained.",
    ),
    "YamlError": (
        "A space file is not YAML as gpnas reads it (YAML 1.2, no tags, no aliases that multiply).",
        "Correct the line that the message names.",
    ),
    "DataError": (
        "Photographs or pairs cannot be used.",
        "`gpnas data check DIR --scale N` says of every file what is wrong with it.",
    ),
    "PairsError": (
        "A folder of pairs or a prepared set cannot be used.",
        "`gpnas data check DIR --scale N` says of every file what is wrong with it; a prepared set in the "
        "cache is made anew where it is missing.",
    ),
    "ImageError": (
        "An image cannot be read or written as it is.",
        "`--convert` of `gpnas upscale` makes RGB of what is grey, indexed or transparent; a damaged file "
        "must be copied again.",
    ),
    "JournalError": (
        "The journal of a run folder is missing, damaged, in use, or belongs to another search.",
        "Nothing was changed. `gpnas doctor RUN` looks at the whole folder; a journal that is torn is "
        "recovered from the backup beside it, where that is whole.",
    ),
    "DamageError": (
        "A stored document or a database is not as gpnas writes it.",
        "`gpnas doctor RUN` names what is damaged; bring the file back from a copy, or begin a new run.",
    ),
    "BundleError": (
        "A bundle cannot be written, or what was read is no bundle that can be trusted.",
        "Fetch it again, or export it again from its run; `gpnas doctor BUNDLE` verifies one.",
    ),
    "TrialError": (
        "Trainings cannot be started or cannot go on.",
        "What was observed is kept: the same command goes on once the cause is gone.",
    ),
    "WeightsError": (
        "A file does not hold weights that gpnas can use.",
        "Give published weights of one of the families, in any of the usual wrappers.",
    ),
    "ConversionError": (
        "A network cannot be converted.",
        "Convert another one, or use the bundle itself.",
    ),
    ARGUMENTS: (
        "An argument or an option on the command line is missing, is not one of the command's, or has a "
        "value that it cannot take. Nothing was begun, and the exit code is 2.",
        "The command's `--help` says what it takes.",
    ),
    PRINTED: (
        "A command that did most of its work says at its end, after `error:`, what it could not do.",
        "What it did is kept; mend what the line names.",
    ),
    FAILURES: (
        "The training of one candidate cannot be finished; the journal has why, and `gpnas status` shows it.",
        "The search goes on with other candidates. Mend what the reason names before the next search.",
    ),
    FINDINGS: (
        "`gpnas doctor` looks at the installation, the machine, a run folder or a bundle, and says what is "
        "not as it should be.",
        "What stands after the semicolon; a finding that is marked as a note is only worth to know.",
    ),
    SYSTEM: (
        "The operating system refused a file or a folder. The message is its name and one of these reasons.",
        "Mend what the reason says, and run the same command again.",
    ),
    "LeaseLostError": (
        "A worker's lease is another's by now, or its candidate is observed.",
        "The worker asks for another candidate by itself; a program of yours does the same.",
    ),
    "FinishedError": (
        "The search that a worker asks has nothing more to train.",
        "Nothing need be done; the worker ends.",
    ),
    "RefusedError": (
        "A service cannot be reached, or refuses what a worker or a client asks of it.",
        "Look whether the service runs, at its address and at the token; the message has what it said.",
    ),
    "NetworkError": (
        "The weights of a trained network are missing or damaged.",
        "Train it again as the message says, or bring the file back from a copy.",
    ),
    "MemoryError": (
        "This machine's memory is full.",
        "The same command goes on from the last checkpoint; end what else takes memory.",
    ),
    "OutOfMemoryError": (
        "The memory of the GPU or of the machine does not hold what a network computes at once.",
        "Take smaller tiles or batches.",
    ),
    "OSError": (
        "A file, a folder or a connection cannot be used as it is.",
        "Mend what the message names, and run the same command again.",
    ),
    "PeerError": (
        "Several processes train one candidate, and one of them is gone.",
        "The training goes on by itself from its last checkpoint.",
    ),
    "TrainingError": (
        "A training cannot go on, or a checkpoint cannot be used.",
        "What was trained before is kept; the message says what to change.",
    ),
    "WorkersError": (
        "A process that prepares pairs has died.",
        "What is prepared is kept, and the same command goes on with it.",
    ),
    "LeaseError": (
        "A candidate is leased to someone else, or the lease has run out.",
        "Ask for another candidate; what was reported before is kept, and the first observation counts.",
    ),
    "OwnError": (
        "A network or a training of your own breaks its contract.",
        "Correct the line of your file that the message names; nothing has been observed for it.",
    ),
    "Excluded": (
        "A pair is left out of a set.",
        "`gpnas data check` has an option for each bound; mend the images rather than lowering one.",
    ),
    "Problem": (
        "The service refuses a request, or cannot do what it asks.",
        "The answer's `status` says whose fault it is (4xx the request's, 5xx the service's), its `detail` "
        "has the message.",
    ),
    "ServiceError": (
        "`gpnas serve` cannot start as it is told to.",
        "Correct the option that the message names; nothing has been started.",
    ),
    "Interrupted": (
        "A command was ended by a signal or by its time budget, in good order.",
        "The same command goes on where it stopped.",
    ),
    "StartError": (
        "Ray does not start on this machine.",
        "It is tried again by itself; what was observed is kept, and the same command goes on.",
    ),
    "TokenError": (
        "The service's file of tokens cannot be used, or a token is not what was asked for.",
        "`gpnas token list --runs DIR` shows what there is.",
    ),
    "CollapseError": (
        "A training's loss or its pixels ceased to be finite or left every bound, and did so again.",
        "Lower the learning rate or give the architecture's family a recipe of its own.",
    ),
    "ResidualError": (
        "What a training's errors have in common with others' is missing or damaged.",
        "Train the candidate that the message names again, or choose without it.",
    ),
}
"""What is said of each class of errors: why it is met, and what to do in general."""
OTHERS = (
    "A value breaks a rule of a function or of a record.",
    "Give a value as the message asks for; from the command line it names the option or the key.",
)


def error_index() -> Iterator[str]:
    """Every message, by the class of the error, with what to do about it."""
    yield "# Errors by their message\n"
    yield (
        "Every error is one line: the rule, the value that broke it, what to do. Search this page for a part "
        "of yours that holds no name or number of your own; `…` stands for those. The rule is why it was "
        "raised; beneath it stands what to do. The search of this site takes a whole line.\n"
    )
    found, said = messages(), remarks()
    kinds = sorted({each.kind for each in found}, key=lambda kind: (kind not in WHY, kind))
    for kind in kinds:
        why, general = WHY.get(kind, OTHERS)
        yield f"## {kind}\n\n**Why.** {why}\n\n**What to do.** {general}\n"
        files: dict[str, set[str]] = {}
        for each in found:
            if each.kind == kind:
                files.setdefault(each.template, set()).add(f"`{each.file}`")
        for template, places in sorted(files.items()):
            remedy = advice(template) or said.get(template, "")
            yield f"#### `` {template} ``\n\n{remedy} *Raised in* {', '.join(sorted(places))}.\n"
        yield ""


def messages() -> list[Message]:
    """What the source can tell in an error, and what tells of errors in its name."""
    of_keys = [f"`…`: {text}, but got …" for text in VALIDATORS]
    return [
        *error_texts.messages(),
        *(Message(ARGUMENTS, text, "gpnas/cli/parser.py", 0) for text in PARSERS),
        *(Message("SpaceError", text, "gpnas/config/mistakes.py", 0) for text in of_keys),
        *(Message(SYSTEM, f"…: {os.strerror(number)}", "gpnas/cli/__init__.py", 0) for number in SYSTEMS),
    ]


def advice(template: str) -> str | None:
    """What a message itself says is to be done, after its last semicolon; None where it says nothing."""
    _, _, text = template.rpartition(";")
    least = 3 if text.endswith("…") else 2
    if text == template or len(words(text)) < least:
        return None
    text = text.strip()
    if text.startswith("pip "):
        return f"Run `{text}`."
    return f"{text[0].upper()}{text[1:]}."


def remarks() -> dict[str, str]:
    """What `remarks.yaml` says is to be done, by message."""
    groups = yaml.safe_load((Path(__file__).parent / "remarks.yaml").read_text())
    return {message: group["do"] for group in groups for message in group["messages"].splitlines()}
