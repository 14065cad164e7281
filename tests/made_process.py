"""A Python process that Ctrl-C reaches, as it does one that was started in a terminal."""

import signal
import subprocess
import sys
from typing import Any


def start(*arguments: str, **options: Any) -> subprocess.Popen:
    """As subprocess.Popen. A shell's background jobs ignore SIGINT and hand that on, tests among them."""
    return subprocess.Popen(
        [sys.executable, *arguments], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options
    )
