"""Makes `import cv2` work on machines without a desktop's libraries.

opencv-python links to libGL and glib, which bare servers and containers lack; there the headless
build, which has everything but windows, takes its place.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version


def imports() -> str | None:
    """Why cv2 cannot be imported in a fresh interpreter, or None if it can."""
    done = subprocess.run([sys.executable, "-c", "import cv2"], capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments], check=True
    )


def main() -> int:
    problem = imports()
    if problem is None:
        return 0
    print(f"opencv-python cannot be used here ({problem}); taking opencv-python-headless instead:")
    print("everything works but windows (Debian: apt-get install libgl1 libglib2.0-0 libxcb1")
    print("libx11-xcb1, then `make clean`, to have those too)")
    # opencv-python stays registered, as the dependency it is; the headless files take its place.
    pip(
        "install",
        "--no-deps",
        "--force-reinstall",
        f"opencv-python-headless=={version('opencv-python')}",
    )
    problem = imports()
    if problem is not None:
        print(f"cv2 still cannot be imported: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
