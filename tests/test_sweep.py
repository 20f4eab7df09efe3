"""A sweep: every cell is checked first, what is finished is not made again, and what fails stops nothing else."""
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack

import made_up_cells
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from conftest import FEW, ROOT
from made_up_cells import at_once, dpo_fails, dpo_has_no_memory, noted

from calib_nb import sweep as room
from calib_nb.command_line import main
from calib_nb.core import RecordError, read_json, write_json, write_text
from calib_nb.sweep import Sweep, _Driver, _is_done, _Lost, _place_of, _state_file, _work

SIX = {"method": ["dpo", "sft", "brier"], "seed": [0, 1]}


class Here:
    "Stands in for Ray: cells are made in this process, two at a time; some are lost."

    def __init__(self, settings=None, source=None, make=at_once, lost=()):
        self.make, self.lost, self.started = make, lost, []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def room(self):
        return 2

    def start(self, job):
        self.started.append(f"{job['parameters']['method']}-{job['parameters']['seed']}")
        return json.dumps(job)

    def ended(self, tickets):
        return tickets[:1]

    def outcome(self, ticket):
        job = json.loads(ticket)
        if job["parameters"]["method"] in self.lost:
            raise _Lost("its process or machine was lost")
        return _work(job, self.make)


def swept(sweep, **how):
    "Make what is missing of a sweep, here; the stand-in."
    engine = Here(**how)
    _Driver(sweep.cells, sweep.place, sweep.settings, engine).run()
    return engine


def six(out, **keys):
    "A sweep of six cells."
    return Sweep({"grid": SIX, "out": str(out), **keys})


def by_state(sweep):
    "state -> the cells in it."
    states = sweep.states()
    names = states.method + "-" + states.seed.astype(str)
    return {state: sorted(group) for state, group in names.groupby(states.state)}


# The file


@pytest.mark.parametrize("text, said", [
    ("", r"must be a mapping with the key 'grid'"),
    ("grid: {seed: [0]", r"grid.yaml:1: not YAML \(.*Mend it there"),
    ("grid:\n  seed: [0]\n  seed: [1]", r"grid.yaml:3: grid.seed: the key stands twice. Keep one"),
    ("grid: {seed: [0]}\nmethod: sft", r"grid.yaml:2: method: unknown key 'method'.*under 'grid' or 'fixed'"),
    ("grid: {sed: [0]}", r"grid.yaml:1: grid.sed: unknown parameter 'sed'. Did you mean 'seed'"),
    ("grid: {seed: [0]}\nfixed:\n  modle: x", r"grid.yaml:3: fixed.modle: unknown parameter.*'model'"),
    ("grid: {out: [a, b]}", r"grid.out: unknown parameter"),
    ("grid:\n  method: sft", r"grid.yaml:2: grid.method: must be a list of values, such as \['sft'\]"),
    ("grid: {seed: []}", r"grid.seed: must be a list of values"),
    ("grid: {seed: [0]}\nfixed: {seed: 1}", r"grid.seed: stands under 'fixed', too"),
    ("grid: {}", r"grid: names no parameter. Give it at least one"),
    ("grid: []", r"grid: names no parameter"),
    ("grid: [seed]", r"grid.0: must be a mapping of lists"),
    ("grid:\n  method: [sft]\n  seed: [0, x]", r"grid.yaml:3: grid.seed: parameter 'seed' must be int, found 'x'"),
    ("grid:\n  method: [sft, sfft]", r"grid.yaml:2: grid.method: unknown method 'sfft'.*Did you mean 'sft'"),
    ("grid:\n- method: [sft]\n- seed: [-1]", r"grid.yaml:3: grid.1.seed: parameter 'seed' must be at least 0"),
    ("grid: {seed: [0]}\nfixed:\n  n_train: 0", r"grid.yaml:3: fixed.n_train: parameter 'n_train' must be at least 1"),
    ("grid: {seed: [0]}\ncpus: 0", r"grid.yaml:2: cpus: must be at least 0.01"),
    ("grid: {seed: [0]}\ncpus: .nan", r"cpus: must be at least"),
    ("grid: {seed: [0]}\ngpus: 1.5", r"gpus: must be whole above 1; found 1.5. Write 2"),
    ("grid: {seed: [0]}\ntries: yes", r"tries: must be a whole number; found True"),
    ("grid: {seed: [0]}\nfail_fast: 1", r"fail_fast: must be true or false; found 1"),
    ("grid: {seed: [0]}\nfixed: [a]", r"fixed: must be a mapping"),
    ("grid: {seed: &a [0, *a]}", r"grid.seed: parameter 'seed' must be int"),
    ("grid: {seed: [2026-13-45]}", r"not YAML"),
    ("grid: {seed: [" + ", ".join("0" * 200) + "], split_seed: [" + ", ".join("0" * 200) + "]}", r"has 40000 cells"),
])
def test_what_is_wrong_with_a_grid_is_said_with_line_key_and_remedy(tmp_path, text, said):
    path = write_text(tmp_path / "grid.yaml", text)
    with pytest.raises(RecordError, match=said) as error:
        Sweep(path).cells  # noqa: B018
    assert "\n" not in str(error.value)
    assert not (ROOT / "runs/sweep").exists() or list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_and_one_that_is_no_text(tmp_path):
    with pytest.raises(RecordError, match="no such file"):
        Sweep(tmp_path / "none.yaml")
    (tmp_path / "grid.yaml").write_bytes(b"grid: \xff\xfe")
    with pytest.raises(RecordError, match="grid.yaml:1: not UTF-8"):
        Sweep(tmp_path / "grid.yaml")


def test_a_combination_that_no_run_can_have_is_named_by_its_values(tmp_path):
    grid = {"method": ["sft"], "model": ["endpoint:a"]}
    with pytest.raises(RecordError, match="the cell with method = 'sft', model = 'endpoint:a': method 'sft' trains"):
        Sweep({"grid": grid, "out": str(tmp_path)}).cells  # noqa: B018


def test_every_combination_is_a_cell_and_equal_ones_are_one(tmp_path):
    assert len(six(tmp_path).cells) == 6
    shown_otherwise = {"method": ["sft", "sft"], "readout": ["expected", "verbalized"], "n_test": [300]}
    assert len(Sweep({"grid": shown_otherwise, "out": str(tmp_path)}).cells) == 1
    listed = [{"method": ["baseline"]}, {"method": ["sft"], "options": [{}, {"epochs": 1}]}]
    chosen = [(c.parameters["method"], c.parameters["options"]) for c in Sweep({"grid": listed}).cells]
    assert chosen == [("baseline", {}), ("sft", {}), ("sft", {"epochs": 1})]


def test_a_cell_has_another_name_where_a_file_that_it_names_has_changed(tmp_path):
    questions = write_text(tmp_path / "q.csv", "question,answers\na,b\n")
    sweep = {"grid": {"seed": [0]}, "fixed": {"dataset": str(questions)}}
    before = Sweep(sweep).cells[0].name
    assert Sweep(sweep).cells[0].name == before
    write_text(questions, "question,answers\na,c\n")
    assert Sweep(sweep).cells[0].name != before


def test_what_is_secret_in_an_address_is_in_no_name_and_in_no_state(tmp_path):
    fixed = {"dataset": "https://me:hunter2@example.org/q.csv?token=hunter3"}
    sweep = Sweep({"grid": {"seed": [0]}, "fixed": fixed, "out": str(tmp_path / "runs")})
    swept(sweep, make=dpo_fails)
    left = [path.name + path.read_text() for path in (tmp_path / "runs/sweep").glob("*.json")]
    assert left and not any("hunter" in text for text in [*left, sweep.frame().to_csv()])


# Cells


def test_all_cells_are_made_once_and_the_next_start_makes_none(tmp_path):
    assert len(swept(six(tmp_path)).started) == 6
    assert by_state(six(tmp_path)) == {"done": sorted(noted(tmp_path))}
    assert swept(six(tmp_path)).started == []


def test_a_larger_grid_makes_what_it_adds(tmp_path):
    swept(Sweep({"grid": {"method": ["sft"], "seed": [0, 1]}, "out": str(tmp_path)}))
    assert Counter(swept(six(tmp_path)).started).keys() == {"dpo-0", "dpo-1", "brier-0", "brier-1"}


def test_done_is_what_lies_on_disk(tmp_path):
    swept(six(tmp_path))
    (tmp_path / "run-sft-1/metrics.json").unlink()
    assert by_state(six(tmp_path))["waiting"] == ["sft-1"]
    assert swept(six(tmp_path)).started == ["sft-1"]


def test_a_cell_that_is_lost_gets_so_many_tries_and_the_others_go_on(tmp_path):
    started = Counter(swept(six(tmp_path, tries=3), lost=("dpo",)).started)
    assert started == {"dpo-0": 3, "dpo-1": 3, "sft-0": 1, "sft-1": 1, "brier-0": 1, "brier-1": 1}
    states = six(tmp_path).states().set_index("method")
    assert set(states.loc["dpo"].state) == {"failed"} and set(states.loc["dpo"]["try"]) == {3}
    assert set(states.loc["sft"].state) == {"done"} and "lost" in states.loc["dpo"].error.iloc[0]


def test_too_little_memory_is_tried_again_but_not_for_ever(tmp_path):
    swept(six(tmp_path, tries=2), make=dpo_has_no_memory)
    assert Counter(noted(tmp_path, "begun.txt"))["dpo-0"] == 2
    failed = six(tmp_path).states().query("state == 'failed'")
    assert len(failed) == 2 and failed.error.str.startswith("memory: RuntimeError").all()


def test_an_error_of_the_run_is_not_tried_again_and_stands_in_one_line_with_the_rest_in_a_log(tmp_path):
    swept(six(tmp_path), make=dpo_fails)
    assert Counter(noted(tmp_path, "begun.txt")) == {name: 1 for name in noted(tmp_path, "begun.txt")}
    failed = six(tmp_path).states().query("state == 'failed'")
    assert set(failed.error) == {"ValueError: n_train is too small"} and len(noted(tmp_path)) == 4
    logs = [path.read_text() for path in (tmp_path / "sweep").glob("*-dpo-*.log")]
    assert len(logs) == 2 and all("Traceback" in log for log in logs)


def test_with_fail_fast_nothing_new_is_started_and_the_next_starts_make_the_others(tmp_path):
    first = swept(six(tmp_path, fail_fast=True), make=dpo_fails)
    assert len(first.started) == 2
    for _ in range(3):
        swept(six(tmp_path, fail_fast=True), make=dpo_fails)
    assert noted(tmp_path) == ["brier-0", "brier-1", "sft-0", "sft-1"]


def test_a_run_that_leaves_no_finished_folder_has_failed(tmp_path):
    def unfinished(parameters, threads):
        folder = at_once(parameters, threads)
        write_json(folder / "manifest.json", {**read_json(folder / "manifest.json"), "complete": False})
        return folder

    swept(six(tmp_path), make=unfinished)
    assert by_state(six(tmp_path)).keys() == {"failed"}
    assert "not complete" in six(tmp_path).states().error[0]


def test_what_was_running_when_a_sweep_was_stopped_is_said_to_be_stopped_and_made_next(tmp_path):
    class Interrupted(Here):
        def ended(self, tickets):
            raise KeyboardInterrupt

    sweep = six(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        _Driver(sweep.cells, sweep.place, sweep.settings, Interrupted()).run()
    assert {state: len(names) for state, names in by_state(sweep).items()} == {"stopped": 2, "waiting": 4}
    swept(sweep)
    assert len(noted(tmp_path)) == 6


def test_a_state_of_a_driver_that_was_killed_does_not_say_running_for_ever(tmp_path):
    sweep = six(tmp_path)
    sweep.place.write(_state_file(sweep.cells[0].name), {"state": "running", "began": 0})
    assert by_state(sweep)["stopped"] == ["dpo-0"]
    with room.locked(sweep.place.work / "sweep" / sweep.name):
        assert by_state(sweep)["running"] == ["dpo-0"]


@pytest.mark.slow
def test_two_processes_make_a_cell_one_after_the_other(tmp_path):
    sweep = Sweep({"grid": {"seed": [0]}, "out": str(tmp_path)})
    job = room._Queue(sweep.cells, sweep.place, sweep.settings, None).job(sweep.cells[0], 1)
    inside, most, lock = [0], [0], threading.Lock()

    def counted(parameters, threads):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.2)
        inside[0] -= 1
        return at_once(parameters, threads)

    code = f"from calib_nb.sweep import _work; from made_up_cells import in_a_while; _work({job!r}, in_a_while)"
    other = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATH})
    waited_for(lambda: noted(tmp_path, "begun.txt"))
    assert _work(job, counted)["state"] == "done"  # waits
    assert noted(tmp_path) == ["sft-0", "sft-0"] and other.wait(60) == 0
    assert _is_done(sweep.place, sweep.place.read(_state_file(sweep.cells[0].name)))


# Elsewhere


def far(tmp_path, **keys):
    return six(f"file://{tmp_path}/bucket/runs", work=str(tmp_path / "work"), **keys)


def test_at_an_address_a_run_is_put_when_it_is_finished_its_manifest_last(tmp_path, monkeypatch):
    sweep, order = far(tmp_path), []
    fs, root = sweep.place._there
    put = type(fs).put_file
    monkeypatch.setattr(type(fs), "put_file", lambda fs, here, there: order.append(there) or put(fs, here, there))
    assert len(swept(sweep, make=dpo_fails).started) == 6
    ends = [i for i, path in enumerate(order) if path.endswith("manifest.json")]
    assert len(ends) == 4 and ends == [5 * (i + 1) - 1 for i in range(4)]
    assert swept(far(tmp_path), make=dpo_fails).started == ["dpo-0", "dpo-1"]


def test_from_an_address_the_frame_and_the_folders_are_read_without_what_was_local(tmp_path):
    import shutil

    swept(far(tmp_path))
    shutil.rmtree(tmp_path / "work")
    assert by_state(far(tmp_path)).keys() == {"done"}
    assert len(far(tmp_path).frame()) == 6 * 4
    folders = far(tmp_path).folders(method="sft")
    assert [read_json(path / "manifest.json")["parameters"]["seed"] for path in folders] == [0, 1]


def test_a_run_that_is_half_there_is_not_done(tmp_path):
    swept(far(tmp_path))
    (tmp_path / "bucket/runs/run-sft-0/manifest.json").unlink()
    assert swept(far(tmp_path)).started == ["sft-0"]


def test_an_address_of_an_unknown_kind_is_one_line(tmp_path):
    with pytest.raises(RecordError, match="nowhere://bucket: cannot be opened"):
        six("nowhere://bucket").states()


# Results


def test_one_frame_has_each_metric_of_each_run_and_a_row_for_what_is_missing(tmp_path):
    pytest.importorskip("pyarrow")
    sweep = six(tmp_path)
    swept(sweep, make=dpo_fails)
    frame = sweep._keep_frame()
    kept = pd.read_parquet(tmp_path / "sweep.parquet")
    pd.testing.assert_frame_equal(kept, frame, check_dtype=False)
    assert len(frame) == 4 * 4 + 2
    row = kept.query("method == 'sft' and seed == 1 and readout == 'expected' and metric == 'auroc'").iloc[0]
    assert (row.value, row.low, row.high, row.state) == (0.8, 0.7, 0.9, "done")
    assert row.folder == str(tmp_path / "run-sft-1") and row.model == "smollm2-135m"
    failed = kept.query("method == 'dpo'")
    assert failed.metric.isna().all() and set(failed.error) == {"ValueError: n_train is too small"}
    assert kept.high[kept.metric == "brier_score"].isna().all()


def test_the_folders_are_those_of_finished_runs_with_these_parameters(tmp_path):
    sweep = six(tmp_path)
    swept(sweep, make=dpo_fails)
    assert [path.name for path in sweep.folders(seed=1)] == ["run-sft-1", "run-brier-1"]
    assert len(sweep.folders()) == 4 and sweep.folders(method="dpo") == []


# Ray's surroundings


def test_who_lacks_ray_is_told_what_to_install(tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(room.importlib, "import_module", absent)
    with pytest.raises(RecordError, match=r"package 'ray': pip install 'calib_nb\[train,sweep\]'"):
        room._Engine(six(tmp_path).settings, None, at_once)


def test_a_small_dev_shm_is_named_and_the_store_lies_elsewhere(monkeypatch, capsys):
    usage = room.shutil._ntuple_diskusage
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: usage(64 * 2**20, 0, 64 * 2**20))
    assert room._store()["_plasma_directory"] == room.tempfile.gettempdir()
    assert "/dev/shm has 64 MiB left" in capsys.readouterr().out
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: usage(2**34, 0, 2**34))
    assert room._store() == {"object_store_memory": room._STORE} and capsys.readouterr().out == ""


def repository(folder):
    "A folder with 200 MB of results, git's files, an environment and some code."
    sizes = {"runs/a/x.jsonl": 200, ".git/pack": 150, ".venv/lib/torch.so": 900, "mine.py": 0, "data/scan.bin": 120}
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        os.truncate(path, size * 10**6)
    return folder


def test_what_would_be_sent_is_without_results_and_too_much_is_named(tmp_path):
    sweep = six(tmp_path, address="auto", working_dir=str(repository(tmp_path)))
    with pytest.raises(RecordError, match=r"working_dir: 120 MB would be sent, at most 100; largest: data \(120 MB\)"):
        room._to_send(sweep.settings, sweep.source)
    sweep = six(tmp_path, address="auto", working_dir=str(tmp_path), exclude=["data"])
    assert {".git", ".venv", "runs", "data"} <= set(room._to_send(sweep.settings, sweep.source)["excludes"])
    assert room._to_send(six(tmp_path, address="auto").settings, None) == {}, "nothing that was not asked for"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999"])
def test_where_no_cluster_answers_is_said_at_once(tmp_path, address):
    sweep = six(tmp_path, address=address)
    with pytest.raises(RecordError, match=f"address: no cluster at '{address}'.*Start one"):
        room._start_ray(None, sweep.settings, sweep.source)


def test_room_is_what_the_scarcest_resource_leaves():
    machine = {"CPU": 8.0, "GPU": 2.0, "memory": 16 * 2**30}
    assert room._fit(machine, {"CPU": 2, "GPU": 0.5, "memory": 2**32}) == 4
    assert room._fit(machine, {"CPU": 1, "GPU": 0.25, "memory": 0}) == 8
    assert room._fit({"CPU": 8.0}, {"CPU": 1, "GPU": 1, "memory": 0}) == 0


# The command


@pytest.fixture
def command(monkeypatch, tmp_path):
    "What `calib_nb sweep` says of six cells, of which some may fail."
    def run(*options, make=at_once):
        monkeypatch.setattr(room, "_Engine", lambda settings, source, _: Here(make=make))
        grid = write_text(tmp_path / "grid.yaml", yaml.safe_dump({"grid": SIX, "out": str(tmp_path / "runs")}))
        return CliRunner().invoke(main, ["sweep", str(grid), *options])

    return run


def test_the_command_shows_without_starting_makes_what_is_missing_and_says_what_failed(command, tmp_path):
    pytest.importorskip("pyarrow")
    shown = command("--show")
    assert shown.exit_code == 0 and "6 waiting" in shown.stderr and not (tmp_path / "runs").exists()
    bad = command(make=dpo_fails)
    assert bad.exit_code == 1 and "4 done, 2 failed" in bad.stderr and "n_train is too small" in bad.stdout
    good = command()
    assert good.exit_code == 0 and "6 done" in good.stderr
    assert (tmp_path / "runs/grid.parquet").exists()


@pytest.mark.slow
def test_who_looks_on_while_runs_are_made_loads_no_torch(command, tmp_path):
    command()
    code = (
        "import sys; from calib_nb.command_line import main; "
        f"main(['sweep', {str(tmp_path / 'grid.yaml')!r}, '--show'], standalone_mode=False); "
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    run = {"cwd": ROOT, "check": True, "capture_output": True, "text": True}
    with room.locked(tmp_path / "runs/sweep/grid"):  # as who makes them holds it
        shown = subprocess.run([sys.executable, "-c", code], **run).stdout
    assert shown.count("done") == 6


# With Ray

PATH = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
PATIENT = {  # seconds and milliseconds: others may use this machine, too
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_niceness": "0",
}
PORTS = "metrics_agent_port", "metrics_export_port", "runtime_env_agent_port"


def waited_for(condition, seconds=300):
    "What the condition gives, as soon as it gives something."
    end = time.time() + seconds
    while time.time() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s in vain")


def free_ports(n):
    "So many ports that nobody listens on."
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def node(**more):
    "How a node is started; with ports that are given to them, Ray's processes need not wait for one another."
    ports = {**dict(zip(PORTS, free_ports(len(PORTS)))), "dashboard_agent_listen_port": 0}
    return {"num_cpus": 2, "object_store_memory": room._STORE, "include_log_monitor": False, **ports, **more}


@pytest.fixture
def cluster(monkeypatch):
    "A function that starts Ray's nodes on this machine, two cores each; returns the `Cluster`."
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    for name, value in {**room._QUIET, **PATIENT, "PYTHONPATH": PATH}.items():
        monkeypatch.setenv(name, value)
    started = []

    def start(nodes, tries=5):
        try:
            head = node(include_dashboard=False, no_monitor=True)
            started.append(Cluster(initialize_head=True, head_node_args=head))
            for _ in range(nodes - 1):
                started[-1].add_node(**node())
            return started[-1]
        except Exception as e:  # its processes give each other 15 seconds
            if "timed out" not in str(e) or not tries:
                raise
            return start(nodes, tries - 1)

    yield start
    for one in started:
        one.shutdown()


@pytest.mark.long
def test_a_node_is_killed_in_the_middle_and_the_sweep_ends_complete_with_no_cell_twice(cluster, tmp_path):
    nodes = cluster(nodes=2)
    sweep = six(tmp_path, address=nodes.address)
    other, lost = next(iter(nodes.worker_nodes)), []

    def kill_one():
        there = f" {other.node_id[:6]}"
        lost.extend(waited_for(lambda: noted(tmp_path) and running_on(sweep, there)))
        nodes.remove_node(other, allow_graceful=False)
        waited_for(lambda: sweep.states().error.notna().any())
        write_text(tmp_path / "go.txt", "")

    killer = threading.Thread(target=kill_one)
    killer.start()
    frame = sweep.run(made_up_cells.when_told)
    killer.join()
    assert set(frame.state) == {"done"}
    assert Counter(noted(tmp_path)) == dict.fromkeys(("dpo-0", "dpo-1", "sft-0", "sft-1", "brier-0", "brier-1"), 1)
    assert sum(sweep.states()["try"] == 2) >= len(lost) > 0


def running_on(sweep, node):
    "The cells that run on a node."
    states = sweep.states().query("state == 'running'")
    return list(states.method[states.node.str.endswith(node)])


DRIVER = """
import sys
from calib_nb.sweep import Sweep
import made_up_cells
Sweep(sys.argv[1]).run(getattr(made_up_cells, sys.argv[2]))
"""


def driver(grid, make):
    "A process that makes a sweep."
    how = {"env": {**os.environ, "PYTHONPATH": PATH}, "cwd": ROOT, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(grid), make], **how)


def running(out):
    "The states of cells that run."
    states = [read_json(path) for path in (out / "sweep").glob("*-seed*.json")]
    return [state for state in states if state["state"] == "running"]


def is_alive(process):  # its number
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.long
def test_the_driver_is_killed_and_the_next_start_makes_only_what_is_missing(cluster, tmp_path):
    out = tmp_path / "runs"
    said = {"grid": SIX, "out": str(out), "address": cluster(nodes=1).address}
    grid = write_text(tmp_path / "grid.yaml", yaml.safe_dump(said))
    first = driver(grid, "when_told")
    states = waited_for(lambda: len(noted(out)) == 2 and running(out))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not {"running", "failed"} & set(by_state(Sweep(grid)))
    waited_for(lambda: not any(is_alive(state["process"]) for state in states))
    write_text(out / "go.txt", "")
    second = driver(grid, "when_told")
    assert second.wait(300) == 0, second.stderr.read()
    assert set(noted(out)) == {"dpo-0", "dpo-1", "sft-0", "sft-1", "brier-0", "brier-1"}
    assert len(noted(out)) == 6, "what was finished is not made again"


@pytest.mark.long
def test_two_hundred_cells_of_no_work_end(cluster, tmp_path):
    sweep = Sweep({"grid": {"seed": list(range(200))}, "out": str(tmp_path), "address": cluster(nodes=1).address})
    frame = sweep.run(at_once)
    assert set(frame.state) == {"done"}
    assert len(noted(tmp_path)) == len(set(noted(tmp_path))) == 200


@pytest.mark.long
def test_what_the_memory_monitor_ends_is_tried_so_often_and_the_others_go_on(cluster, tmp_path, monkeypatch):
    memory = pytest.importorskip("psutil").virtual_memory()
    if memory.available < 2**33:
        pytest.skip("too little memory here to take four gigabytes")
    allowed = memory.total - memory.available + 2**31
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{allowed / memory.total:.3f}")
    sweep = Sweep({
        "grid": {"method": ["dpo", "sft", "brier"]},
        "out": str(tmp_path),
        "address": cluster(nodes=1).address,
        "tries": 2,
    })
    sweep.run(made_up_cells.dpo_takes_much_memory)
    states = sweep.states().set_index("method")
    assert states.state.to_dict() == {"dpo": "failed", "sft": "done", "brier": "done"}
    assert states.error["dpo"].startswith("memory: ") and Counter(noted(tmp_path, "begun.txt"))["dpo-0"] == 2


@pytest.mark.long
def test_what_is_sent_to_a_cluster_lies_there_without_results(cluster, tmp_path):
    code = repository(tmp_path / "code")
    out, address = tmp_path / "runs", cluster(nodes=1).address
    keys = {"working_dir": str(code), "exclude": ["data"], "out": str(out), "address": address}
    Sweep({"grid": {"seed": [0]}, **keys}).run(made_up_cells.lists_its_folder)
    assert (out / "run-sft-0/files.txt").read_text().split() == ["mine.py"]


@pytest.mark.long
def test_a_cell_that_fits_on_no_machine_is_an_error_at_once(tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(RecordError, match="cpus: a cell takes 4000, this machine has .*. Write at most that"):
        six(tmp_path, cpus=4000).run(at_once)


@pytest.mark.long
def test_a_real_cell_is_the_run_of_its_parameters_with_as_many_threads_as_cores(cluster, tmp_path):
    place = {"out": str(tmp_path), "address": cluster(nodes=1).address}
    grid = {"grid": {"method": ["baseline"]}, "fixed": FEW, "cpus": 2, **place}
    sweep = Sweep(grid)
    frame = sweep.run()
    manifest = read_json(sweep.folders()[0] / "manifest.json")
    assert manifest["device"]["threads"] == "2" and manifest["complete"]
    metrics = read_json(sweep.folders()[0] / "metrics.json")
    row = frame.query("readout == 'expected' and metric == 'brier_score'").iloc[0]
    assert row.value == metrics["expected"]["brier_score"]["value"]
    assert sweep.run().equals(frame), "the second start makes nothing"
    assert _place_of(str(tmp_path)).has_run(sweep.folders()[0].name)
