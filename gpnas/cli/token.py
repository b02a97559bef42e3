"""`gpnas token`: who may use the service."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from gpnas.cli.reporting import Report
from gpnas.cli.tables import Table
from gpnas.cli.text import printable
from gpnas.service.tokens import Tokens


def run(options: argparse.Namespace) -> Report:
    with Tokens(options.runs) as tokens:
        if options.action == "make":
            token, text = tokens.make(options.role, options.name)
            return Report({**asdict(token), "token": text}, [text])
        if options.action == "revoke":
            token = tokens.revoke(options.id)
            return Report(asdict(token), [f"{token.id} was revoked at {token.revoked}"])
        every = tokens.all()
    shown = Table("Tokens", "ID", "role", "made", "revoked", "for", whole=("ID",), left=("role", "for"))
    for token in every:
        shown.add_row(
            token.id, token.role, token.made[:19], (token.revoked or "")[:19], printable(token.name)
        )
    return Report({"tokens": [asdict(token) for token in every]}, [shown])
