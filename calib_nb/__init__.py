__version__ = "0.2.0"

import sys

if "IPython.core.oinspect" in sys.modules:  # where `?` and Shift-Tab are answered: let them show what parameters mean
    from .help import _answer_in, _say_what_comes_first

    _answer_in(sys.modules["IPython.core.oinspect"])
    if _shell := sys.modules["IPython"].get_ipython():
        _say_what_comes_first(_shell)
