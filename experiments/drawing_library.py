"""Makes `gpnas/report/assets/vega.js.xz`, what draws the figures of pages, from the npm registry.

Vega as vl-convert has it, without the transforms that no figure of ours uses (maps, forces, trees,
labels, regressions, Voronoi cells, word clouds, cross filters), with Vega-Lite and Vega-Embed; in one file,
shortened.
It needs npm:

    python experiments/drawing_library.py
"""

import json
import lzma
import re
import subprocess
import tempfile
from pathlib import Path

import vl_convert

ASSET = Path(__file__).parents[1] / "gpnas" / "report" / "assets" / "vega.js.xz"
VERSIONS = {
    "vega": vl_convert.get_vega_version(),
    "vega-lite": "6.4.1",  # of which vl-convert tells the first two numbers
    "vega-embed": vl_convert.get_vega_embed_version(),
    "esbuild": "0.28.2",
    "terser": "5.51.4",
}
OVERRIDES = {"vega-scenegraph": "5.1.0"}
"""What this Vega draws with; the registry has newer ones, and one is enough."""
UNUSED = ("geo", "force", "tree", "label", "reg", "voronoi", "wordcloud", "xf")
"""Transforms that are left out, by the names that Vega's index gives them."""


def compressed(text: bytes) -> bytes:
    """The smallest form that Python's own `lzma` reads; what xz's presets expect is binary."""
    own = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 2, "pb": 0, "nice_len": 128}
    return lzma.compress(text, check=lzma.CHECK_CRC32, filters=[own])


def main() -> None:
    assert VERSIONS["vega-lite"].startswith(vl_convert.get_vegalite_versions()[-1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "package.json").write_text(json.dumps({"dependencies": VERSIONS, "overrides": OVERRIDES}))
        run("npm", "install", "--silent", cwd=folder)
        index = (folder / "node_modules" / "vega" / "index.js").read_text()
        for unused in UNUSED:
            index = re.sub(rf"import \* as {unused} from .*;\n", "", index)
            index = re.sub(rf"\b{unused}, |, {unused}\b", "", index)
        index = re.sub(r"import \* as pkg .*\n", "", index).replace("pkg.version", f"'{VERSIONS['vega']}'")
        (folder / "node_modules" / "vega" / "part.js").write_text(
            re.sub(r"export \{\s*projection\s*\}.*;", "", index)
        )
        (folder / "entry.js").write_text("import embed from 'vega-embed'; window.vegaEmbed = embed;\n")
        (folder / "themes.js").write_text("export const version = '';\n")  # each page brings its own colours
        bundle = ("--bundle", "--minify", "--format=iife", "--target=es2022", "--log-level=warning")
        run(
            "npx",
            "esbuild",
            "entry.js",
            *bundle,
            "--alias:vega=./node_modules/vega/part.js",
            "--alias:vega-themes=./themes.js",
            "--outfile=all.js",
            cwd=folder,
        )
        run("npx", "terser", "all.js", "-c", "passes=2,ecma=2020", "-m", "-o", "vega.min.js", cwd=folder)
        text = (folder / "vega.min.js").read_bytes()
    assert b"</script" not in text.lower()
    ASSET.write_bytes(compressed(text))
    print(f"{len(text):,} bytes, compressed {ASSET.stat().st_size:,}")


def run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True)


if __name__ == "__main__":
    main()
