"""Python in a process of its own, in the root of the checkout."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_python(*words, **variables):
    """Run python with some words, and with few random examples a test; variables are of the environment."""
    environment = os.environ | {"HYPOTHESIS_PROFILE": "mutation"} | variables
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
