__version__ = "0.2.0"

import os
import sys

# Threads that wait shall sleep. They spin, which is how OpenMP comes: beside other processes on the same cores a run
# takes twice the processor time, and longer. Only where the user says nothing, and before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if "IPython.core.oinspect" in sys.modules:  # where `?` and Shift-Tab are answered: let them show what parameters mean
    from .help import _answer_in, _say_what_comes_first

    _answer_in(sys.modules["IPython.core.oinspect"])
    if _shell := sys.modules["IPython"].get_ipython():
        _say_what_comes_first(_shell)
