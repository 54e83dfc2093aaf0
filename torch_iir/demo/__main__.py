"""python -m torch_iir.demo [NAME] [FILE.wav] [--out DIR]"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from torch_iir.demo import DemoError

DEMOS = {
    "match": "a compiled model learns an unknown filter from a sound and its filtered version",
    "eq": "a compiled equaliser learns the settings of another from a recording",
    "bank": "a bank of 128 learnable filters and a classifier learn to tell notes deep in noise",
    "mel": "mel spectra back to sound: time, error, spectrograms and sounds of four ways",
    "lpc": "speech by linear prediction, refined through the compiled synthesis",
    "backend": "what the torch.compile backend makes of filters in a loop, in a chain, and there and back",
}  # the first is the main one
EXTRA = {"matplotlib", "scipy", "soundfile", "tqdm"}  # what torch_iir[demo] installs


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m torch_iir.demo",
        usage="%(prog)s [NAME] [FILE.wav] [--out DIR]",
        description="Demonstrations of torch_iir.",
        epilog="\n".join(["demos:", *(f"  {name:<8}{what}" for name, what in DEMOS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="NAME, FILE.wav", help="a demo (default: match) and a sound file")
    parser.add_argument("--out", type=Path, help="folder to write to (default: torch_iir_demo/NAME)")
    given = parser.parse_args(arguments)
    words = list(given.words)
    name = words.pop(0) if words and words[0] in DEMOS else next(iter(DEMOS))
    if len(words) > 1:
        parser.error(f"expected at most one demo ({', '.join(DEMOS)}) and one file, got {' '.join(given.words)}")
    out = given.out or Path("torch_iir_demo") / name
    try:
        importlib.import_module(f"torch_iir.demo.{name}").run(Path(words[0]) if words else None, out)
    except DemoError as error:
        print(f"torch_iir.demo: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        print(f"torch_iir.demo: needs {error.name}: pip install 'torch_iir[demo]'", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
