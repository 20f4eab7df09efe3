"""What `make lab` starts JupyterLab with: the whole repository in view, and notebooks cleaned as they are saved."""
from pathlib import Path

from nbdev.clean import clean_jupyter  # only where `jupyter_hooks` of settings.ini is True

c = get_config()  # noqa: F821  JupyterLab runs this file and gives the function to it
c.ServerApp.root_dir = str(Path(__file__).parent)
c.FileContentsManager.pre_save_hook = clean_jupyter
