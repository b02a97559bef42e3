"""Links between clients and a server that break on command: a TCP proxy for each client, in one process.

`python service_kills_links.py PORT PORT…` passes each later port on to the first, and reads commands
`NUMBER FAULT SECONDS` from standard input.
"""

from __future__ import annotations

import asyncio
import sys

FAULTS = ("cut", "answer lost", "halted", "refused")
"""Connections are reset; the next answer is thrown away and its connection reset; nothing passes for a while,
then it goes on; every connection is reset for a while."""


class Link:
    """One client's way to the server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()
        self._going = asyncio.Event()
        self._going.set()
        self._refused = self._swallow = False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refused:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, back}
        self._open |= ends
        try:
            async with asyncio.TaskGroup() as group:
                ways = [
                    group.create_task(self._pump(reader, back, False)),
                    group.create_task(self._pump(there, writer, True)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool) -> None:
        try:
            while data := await source.read(65_536):
                await self._going.wait()
                if answers and self._swallow:
                    self._swallow = False
                    return
                sink.write(data)
                await sink.drain()
        except OSError:
            return

    async def suffer(self, fault: str, seconds: float) -> None:
        if fault == "answer lost":
            self._swallow = True
            return
        if fault == "halted":
            self._going.clear()
            await asyncio.sleep(seconds)
            self._going.set()
            return
        self._refused = fault == "refused"
        for end in list(self._open):
            end.transport.abort()
        await asyncio.sleep(seconds)
        self._refused = False


async def main() -> None:
    server, *ports = map(int, sys.argv[1:])
    links = [Link(server) for _ in ports]
    listening = [
        await asyncio.start_server(link.carry, "127.0.0.1", port)
        for link, port in zip(links, ports, strict=True)
    ]
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    print("ready", flush=True)
    suffering = set()
    while line := (await commands.readline()).decode():
        number, fault, seconds = line.strip().split("\t")
        task = asyncio.create_task(links[int(number)].suffer(fault, float(seconds)))
        suffering.add(task)
        task.add_done_callback(suffering.discard)
    for each in listening:
        each.close()


if __name__ == "__main__":
    asyncio.run(main())
