"""A git that writes its process id and then hangs, with a helper of its own, as a fetch on a dead line does."""

import time
from pathlib import Path

SCRIPT = """#!/bin/sh
case "$*" in
  *fetch*|*ls-remote*) ;;
  *) exec {real} "$@" ;;
esac
{trap}
sleep 600 &
echo $! > {folder}/helper.new && mv {folder}/helper.new {folder}/helper
echo $$ > {folder}/git.new && mv {folder}/git.new {folder}/git.pid
wait
"""


def slow_git(folder: Path, real: str, *, stubborn: bool = False) -> Path:
    """Folder for the front of PATH; a stubborn one ignores the request to end."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    git = programs / "git"
    git.write_text(SCRIPT.format(real=real, folder=folder, trap="trap '' TERM" if stubborn else ""))
    git.chmod(0o755)
    return programs


def started(folder: Path) -> tuple[int, int]:
    """Process ids of the git and of its helper, once it hangs."""
    for _ in range(6000):
        if (folder / "git.pid").is_file():
            return int((folder / "git.pid").read_text()), int((folder / "helper").read_text())
        time.sleep(0.01)
    raise TimeoutError("the slow git was never started")


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not reaped by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int) -> bool:
    """Whether the process ends within a while."""
    for _ in range(3000):
        if not is_alive(pid):
            return True
        time.sleep(0.01)
    return False
