"""Drive the ``neuromill`` command in this process, as a shell would."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from neuromill.cli.main import main


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def neuromill(*arguments: object) -> Ended:
    """Exit code and output of ``neuromill ARGUMENTS``; output is no terminal."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int)
    return Ended(code, out.getvalue(), err.getvalue())
