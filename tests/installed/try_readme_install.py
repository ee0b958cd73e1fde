"""Runs the README's install lines as they are written, in a copy of the checkout: ``make try-readme``.

``python tests/installed/try_readme_install.py FOLDER`` copies the files that git tracks to FOLDER/checkout, so that
earlier builds cannot help, and runs the first block of the README that has ``pip install``. Ops and a program are tried
after that, outside the checkout. The environment that the lines make stays as FOLDER/env.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install_lines(readme: str) -> str:
    """The first block of the README that installs with pip."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if "pip install" in block)


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    checkout = folder / "checkout"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, checkout / name)
    lines = install_lines((checkout / "README.md").read_text())
    print(lines, flush=True)
    # The lines make an environment and activate it, as a user's shell does. What follows is run in that shell too.
    script = f"""
set -e
unset PYTHONPATH POLARMASK_CUDA TORCH_CUDA_ARCH_LIST
cd {checkout}
{lines}
cd {folder}
ln -s "$VIRTUAL_ENV" env
python {ROOT}/tests/installed/try_install.py
if python -c "import torchvision" 2>/dev/null; then python -m polarmask.train --help >/dev/null; fi
"""
    subprocess.run(["bash", "-c", script], check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/installed/try_readme_install.py FOLDER")
    main(Path(sys.argv[1]).resolve())
