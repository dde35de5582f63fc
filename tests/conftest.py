"""Environment of all tests, without a network; the fixtures are in model_fixtures.py."""

import os
import sys
import tempfile
from itertools import pairwise

HOME = tempfile.TemporaryDirectory(prefix="textdiff-tests-")
# read when libraries are first imported, here and in child processes
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": HOME.name, "OMP_NUM_THREADS": "1"}

# pytest-xdist first starts a process that only divides the tests, and all others wait for it
SEVERAL = any(word == "-n" and n != "0" for word, n in pairwise(sys.argv))
ONLY_DIVIDES = SEVERAL and "PYTEST_XDIST_WORKER" not in os.environ

pytest_plugins = [] if ONLY_DIVIDES else ["model_fixtures"]  # it imports torch
