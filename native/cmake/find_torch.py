"""Prints the directory of the torch that belongs to the environment a package is being installed into.

pip and other installers run builds in an environment of their own, without torch: it is not importable there, and one
listed as a build requirement would be a second download of gigabytes, of a version that may not be the user's. So look
where the package will go: in the site-packages of this interpreter, of the active environment, and of the base one.
"""

import os
import re
import site
import sys
import sysconfig
from pathlib import Path

OLDEST = (2, 11)


def candidates():
    scheme = sysconfig.get_default_scheme()
    prefixes = [sys.prefix, os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX"), sys.base_prefix]
    for prefix in filter(None, prefixes):
        bases = {"base": prefix, "platbase": prefix, "installed_base": prefix, "installed_platbase": prefix}
        for kind in "purelib", "platlib":
            yield sysconfig.get_path(kind, "venv" if "venv" in sysconfig.get_scheme_names() else scheme, bases)
            yield sysconfig.get_path(kind, scheme, bases)
    yield site.getusersitepackages()
    yield from filter(None, sys.path)


def version(directory):
    try:
        text = (directory / "version.py").read_text()
    except OSError:
        return None
    found = re.search(r"__version__ = '((\d+)\.(\d+)[^']*)'", text)
    return found and (found[1], (int(found[2]), int(found[3])))


def main():
    unfit = []
    for place in dict.fromkeys(candidates()):
        torch = Path(place) / "torch"
        found = version(torch)
        if found is None:
            continue
        if found[1] >= OLDEST and (torch / "include/torch/csrc/stable/library.h").exists():
            print(torch)
            return
        unfit.append(f"{found[0]} in {place}")
    sys.exit(
        f"torch_iir is built against the torch (2.11 or newer) that it will run with, and found "
        f"{'only ' + ', '.join(unfit) if unfit else 'none'}. Install it first, and then torch_iir again:\n\n"
        f"  python -m pip install 'torch>=2.11'\n"
    )


if __name__ == "__main__":
    main()
