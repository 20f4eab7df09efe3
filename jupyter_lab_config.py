"""What `make lab` starts JupyterLab with: the whole repository in view, and notebooks cleaned as they are saved."""
import os
from pathlib import Path

from nbdev.clean import clean_jupyter  # only where `jupyter_hooks` of settings.ini is True

here = Path(__file__).parent
c = get_config()  # noqa: F821  JupyterLab runs this file and gives the function to it
c.ServerApp.root_dir = str(here)
c.FileContentsManager.pre_save_hook = clean_jupyter
os.environ.setdefault("PYTHONSTARTUP", str(here / "jupyter_kernel_startup.py"))  # kernels inherit it
