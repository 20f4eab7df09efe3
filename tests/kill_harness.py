"""Kills runs with `kill -9`, gives the same command again, and compares what is there with an undisturbed run.

`python tests/kill_harness.py --kills 306 --others --memory --write` is `make kills`; it writes
figures/reliability/reliability.json. The model is tiny and random, its questions are made so that it is right about
half of them. This process imports the training stack once and forks for each run: what a run costs is then the run
alone. A run is killed before one of the events by which it changes a file, in the middle of a file that it writes (what
it has written is cut in half), or at a random time. The same command must then end well, with the same results, and
leave no other file behind.
"""
import argparse
import gc
import hashlib
import inspect
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # what has threads cannot be forked
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1")

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # this checkout's library, whichever is installed
SIZES = {"n_train": 12, "n_calibration": 6, "n_test": 8, "preset": "raw"}
CASES = {  # name -> parameters of `run_method`
    "sft": {"method": "sft"},
    "dpo": {"method": "dpo"},
    "performance_sft": {"method": "performance_sft", "options": {"k": 5}},
    "self_distill": {"method": "self_distill", "options": {"inner_epochs": 1, "epochs": 1}},
    "grpo": {"method": "grpo", "options": {"steps": 3, "generations": 4}},
    "joint": {"method": "sft", "protocol": "joint"},
}
ENOUGH = 900  # seconds: a run that takes longer counts as stuck; a crowded machine needs a minute for one
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")  # audit events
TIMES = ("seconds", "runtime", "per_second", "cpu_")  # names of numbers that differ from run to run


# A model and questions


def make_model(folder):
    "A random model of two layers with a few hundred merges, saved as a local folder."
    from conftest import byte_level_tokenizer, small_model

    from calib_nb.prompts import few_shot_request, training_input

    texts = [few_shot_request("What is it?"), training_input("What is it?")] * 5
    tokenizer = byte_level_tokenizer(texts, vocab_size=600, use_regex=True)
    sizes = {"num_hidden_layers": 2, "intermediate_size": 48, "max_position_embeddings": 1024}
    small_model(tokenizer, **sizes).model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_questions(path, model):
    "A file of questions; to every other one the model's own answer is accepted."
    from calib_nb.answers import answer_questions
    from calib_nb.core import Question, write_jsonl
    from calib_nb.models import load_model
    from calib_nb.rules import judge_by_rules

    words = "amber birch cedar delta ember flint grove haven inlet joker knoll lemon maple noble ocean pearl".split()
    texts = [f"Which {a} is in the {b}?" for a, b in zip(words * 12, pairs(words))]
    asked = [Question(str(i), text, ["x"]) for i, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as cache:
        rows = answer_questions(load_model(str(model)), asked, cache)
    said = {row["question"]: row["model_answer"] for row in rows}
    right = [row for row in rows if judge_by_rules(said[row["question"]], [said[row["question"]]]).grade == "correct"]
    kept = []
    for place, row in enumerate(right[:40]):
        answer = row["model_answer"] if place % 2 else "somewhere else"
        kept.append({"id": row["id"], "question": row["question"], "answers": [answer], "relation": f"r{place % 3}"})
    if len(kept) < 40:
        sys.exit(f"the tiny model answers only {len(kept)} questions with a text that can be judged")
    write_jsonl(path, kept)


def pairs(words):
    "The words, twelve times, each time shifted by one more."
    return [words[(i + shift) % len(words)] for shift in range(1, 13) for i in range(len(words))]


def fake_vectors(texts, *others):
    "A unit vector for each text, from its hash: the embedder takes 15 seconds to load."
    import numpy as np

    rows = []
    for text in texts:
        seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        rows.append(np.random.default_rng(seed).normal(size=16))
    rows = np.array(rows)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# One run in a process of its own


class Events:
    "Counts what changes files under a folder, and kills this process at one of these events."

    def __init__(self, folder, at=0, torn=False, signal=signal.SIGKILL):
        self.folder, self.at, self.torn, self.signal = str(folder), at, torn, signal
        self.count, self.writing, self.busy = 0, None, False

    def watch(self):
        import safetensors.torch
        import torch

        sys.addaudithook(self)
        said = {safetensors.torch: "serialize_file", torch: "save"}  # they open files without an audit event
        for module, name in said.items():
            setattr(module, name, self.announced(getattr(module, name)))

    def announced(self, write):
        def announce(what, file, *args, **kwargs):
            if isinstance(file, str | Path):
                self.happened(str(file), writes=True)
            return write(what, file, *args, **kwargs)

        return announce

    def __call__(self, event, args):
        if self.busy:
            return
        if event == "open":
            path, mode, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            if writes and isinstance(path, str | os.PathLike):
                self.happened(str(path), writes=True)
        elif event in CHANGES:
            by_descriptor = event in ("os.remove", "os.rmdir") and args[-1] != -1
            self.happened(self.folder if by_descriptor else os.fspath(args[0]), writes=False)

    def happened(self, path, writes):
        if not str(path).startswith(self.folder):
            return
        self.busy = True
        self.count += 1
        if self.torn and self.count > self.at and self.writing:
            self.tear()
        if self.torn and self.count >= self.at and not self.writing and writes:
            self.writing = path
        if not self.torn and self.count == self.at:
            os.kill(os.getpid(), self.signal)
        self.busy = False

    def tear(self):
        "What was written is cut in half, then this process is gone."
        if os.path.isfile(self.writing):
            os.truncate(self.writing, os.path.getsize(self.writing) // 2)
        os.kill(os.getpid(), self.signal)


def execute(runs, out, log, **kill):
    "In a child: one run, or several one after the other, their output in a file. Does not return."
    code = 1
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
        try:
            import calib_nb.embeddings
            from calib_nb.core import peak_memory_gib
            from calib_nb.experiment import run_method
            from calib_nb.models import DEVICE_SETTINGS

            DEVICE_SETTINGS["cpu"]["answer_batch"] = 8  # several batches, so that answering can be cut in between
            calib_nb.embeddings._encode = fake_vectors
            draw_less()
            events = Events(out, **kill)
            events.watch()
            peaks = []
            for parameters in runs if isinstance(runs, list) else [runs]:
                run_method(**parameters, out=str(out))
                peaks.append(round(peak_memory_gib(), 3))
            print(f"{peaks=}")
            said = {"events": events.count, "modules": sorted(sys.modules), "peaks": peaks}
            log.with_suffix(".json").write_text(json.dumps(said))
            code = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
    os._exit(code)


def draw_less():
    "Few resamples: intervals are not what is tried here."
    from calib_nb.inference import metric_card

    few = {"n_resamples": 20, "n_floor": 20}
    parameters = inspect.signature(metric_card).parameters.values()
    defaults = [few.get(p.name, p.default) for p in parameters if p.default is not p.empty]
    metric_card.__defaults__ = tuple(defaults)


def start(parameters, out, log, **kill):
    "The process id of a child that runs."
    child = os.fork()
    if child == 0:
        execute(parameters, out, log, **kill)
    return child


def wait(child, seconds=ENOUGH):
    "The child's exit status; it is killed where it takes longer. Returns (status, seconds)."
    begun = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), time.monotonic() - begun
        if time.monotonic() - begun > seconds:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None, seconds
        time.sleep(0.005)


# What a run leaves


def without_times(value):
    "The value without the numbers that say how long something took."
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not any(word in k for word in TIMES)}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def results(out):
    "What must be the same: relative path -> hash, of rows, metrics and weights; and the log of each training."
    found = {}
    for path in sorted(Path(out).rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.name == "training.json":
            found[name] = without_times(json.loads(path.read_text())["history"])
        elif path.suffix in (".jsonl", ".safetensors", ".npy") or path.name == "metrics.json":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def names(out):
    "All files and folders."
    return {path.relative_to(out).as_posix() for path in Path(out).rglob("*")}


def done_stages(out):
    "The stages that a run's manifest names, in order; none where there is no manifest yet."
    manifests = [json.loads(path.read_text()) for path in Path(out).glob("*/manifest.json")]
    return [name for manifest in manifests for name in manifest.get("stages", {})]


class Case:
    "A command, and what it leaves where nobody disturbs it."

    def __init__(self, name, work):
        self.name, self.work = name, work
        shared = {"model": str(work / "model"), "dataset": str(work / "questions.jsonl")}
        self.parameters = {**SIZES, **shared, **CASES[name]}
        out = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))
        status, self.seconds = self.run(out)
        if status:
            sys.exit(f"{name} fails undisturbed:\n{self.log.read_text()[-3000:]}")
        self.expected, self.names = results(out), names(out)
        self.stages = done_stages(out)
        said = json.loads(self.log.with_suffix(".json").read_text())
        self.events, self.modules = said["events"], said["modules"]

    @property
    def log(self):
        return self.work / f"{self.name}.log"

    def run(self, out, seconds=ENOUGH, **kill):
        return wait(start(self.parameters, out, self.log, **kill), seconds)

    def disturb(self, out, how, place):
        "Run into `out` and kill it; whether it was killed before its end."
        if how == "time":
            child = start(self.parameters, out, self.log)
            time.sleep(place)
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
        return self.run(out, at=place, torn=how == "torn")[0] != 0

    def try_once(self, kills):  # kills: [(how, place), ...], one after the other into the same folder
        "The stages where it was killed, what came of it ('identical', 'different', 'stuck', 'left over'), and details."
        out, killed = Path(tempfile.mkdtemp(prefix="cycle-", dir=self.work)), []
        try:
            for how, place in kills:
                if self.disturb(out, how, place):
                    killed.append(self.stage(out))
            status, _ = self.run(out)
            return killed, *self.outcome(out, status)
        finally:
            shutil.rmtree(out)

    def stage(self, out):
        "The first stage that is not done in a folder."
        done = done_stages(out)
        return next((name for name in self.stages if name not in done), "the end")

    def outcome(self, out, status):
        if status != 0:
            lines = self.log.read_text().strip().splitlines()
            return "stuck", lines[-1][:300] if lines else "no output"
        found, left = results(out), names(out)
        differing = sorted(k for k in self.expected if found.get(k) != self.expected[k])
        if differing:
            return "different", ", ".join(differing)[:300]
        if left != self.names:
            return "left over", ", ".join(sorted(left ^ self.names))[:300]
        return "identical", ""


# Other faults


def both_at_once(first, second, work):
    "Two commands into one folder of runs at the same time: the outcome against both undisturbed."
    out = Path(tempfile.mkdtemp(prefix="both-", dir=work))
    children = [start(case.parameters, out, case.log.with_suffix(f".{i}")) for i, case in enumerate((first, second))]
    statuses = [wait(child)[0] for child in children]
    found, left = results(out), names(out)
    if any(statuses):
        return "stuck"
    if found != {**first.expected, **second.expected}:
        return "different"
    return "identical" if left == first.names | second.names else "left over"


def interrupted(case, work):
    "Ctrl-C at five places, the command again after each: the worst outcome."
    for part in range(1, 6):
        out = Path(tempfile.mkdtemp(prefix="interrupt-", dir=work))
        case.run(out, at=part * case.events // 6, signal=signal.SIGINT)
        left = [name for name in names(out) if name.endswith((".part", ".lock"))]
        outcome = case.outcome(out, case.run(out)[0])[0]
        if outcome != "identical" or left:
            return "left over" if left else outcome
    return "identical"


def other_faults(known, work):
    "Fault -> outcome, for the first two cases."
    first, second = list(known.values())[:2]
    return {
        "one folder at once": both_at_once(first, first, work),
        "one cache at once": both_at_once(first, second, work),
        "Ctrl-C": interrupted(first, work),
    }


SEVERAL = "baseline sft dpo performance_sft implicit brier log_score soft_labels shuffled constant_target".split()


def memory(case, work):
    "The peak memory of one process after each of ten methods, in GiB."
    runs = []
    for method in SEVERAL:
        options = {"k": 5} if method in ("performance_sft", "soft_labels") else {}
        runs.append({**case.parameters, "method": method, "options": options})
    log = work / "memory.log"
    status, _ = wait(start(runs, Path(tempfile.mkdtemp(dir=work)), log), 10 * ENOUGH)
    if status:
        sys.exit(f"ten methods in one process: {log.read_text()[-2000:]}")
    return json.loads(log.with_suffix(".json").read_text())["peaks"]


# Many of them


def plan(case, n, draw):
    "`n` ways to kill a case: two thirds at file events spread over the run, a third at random times; some twice."
    ways = []
    for i in range(n):
        place = 1 + int((i + draw.random()) * case.events / n)
        how = ("at", "torn", "time")[i % 3]
        if how == "time":
            place = round(draw.random() * case.seconds, 3)
        way = [(how, min(place, case.events) if how != "time" else place)]
        if i % 7 == 6:  # the second attempt is killed as well
            way.append(("at", 1 + draw.randrange(case.events)))
        ways.append(way)
    return ways


def prepare(work):
    "The model and the questions, made in a child, so that this process stays able to fork."
    child = os.fork()
    if child == 0:
        try:
            make_model(work / "model")
            make_questions(work / "questions.jsonl", work / "model")
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        sys.exit("model and questions cannot be made")


def load_stack(modules=()):
    "Import what a run imports, here and once."
    import importlib

    import torch

    torch.set_num_threads(1)
    importlib.import_module("calib_nb.experiment")
    for name in modules:
        if name in sys.modules or name.startswith("__"):
            continue
        try:
            importlib.import_module(name)
        except Exception:  # a lazy part that only its owner can import
            continue


def hash_code(name):
    "Parse the source that a run of this case executes here and once: `code_hash` remembers it."
    from calib_nb.core import code_hash
    from calib_nb.experiment import Parameters, _code_of

    code_hash(*_code_of(Parameters(**{**SIZES, **CASES[name]})))
    gc.collect()
    gc.freeze()


def tally(given, cases, work, say):
    "Kill until there are enough, or the time is over; the counts by case."
    kills, limit = given.kills, given.minutes * 60
    load_stack()
    prepare(work)
    draw, done, begun = random.Random(given.seed), [], time.monotonic()
    known = {}
    for name in cases:
        hash_code(name)
        if not known:  # the first one imports what is imported late
            load_stack(Case(name, work).modules)
        known[name] = Case(name, work)
        load_stack(known[name].modules)
        say(f"{name}: {known[name].events} events, {known[name].seconds:.1f} s")
    each = -(-kills // len(cases))
    ways = [(name, way) for name in cases for way in plan(known[name], each, draw)]
    draw.shuffle(ways)
    for name, way in ways[:kills]:
        if time.monotonic() - begun > limit:
            break
        killed, outcome, detail = known[name].try_once(way)
        done.append({"case": name, "way": way, "killed": killed, "outcome": outcome, "detail": detail})
        if given.write:
            store(summary(done, known, time.monotonic() - begun))
        if outcome != "identical" or len(done) % 20 == 0:
            say(f"{len(done)}: {name} {way}: {outcome}: {detail}")
    found = summary(done, known, time.monotonic() - begun)
    if given.others:
        found["others"] = other_faults(known, work)
    if given.memory:
        found["memory_gib"] = memory(next(iter(known.values())), work)
    return found


def summary(done, known, seconds):
    "What was tried and what came of it."
    counts = {"kills": sum(len(d["killed"]) for d in done), "commands": len(done)}
    outcomes = Counter(d["outcome"] for d in done)
    for word in ("identical", "different", "stuck", "left over"):
        counts[word.replace(" ", "_")] = outcomes[word]
    cases, stages = {}, {}
    for name, case in known.items():
        own = [d for d in done if d["case"] == name]
        found = Counter(d["outcome"] for d in own)
        cases[name] = {"commands": len(own), "events": case.events, **{k: found[k] for k in sorted(found)}}
        at = Counter(stage for d in own for stage in d["killed"])
        stages[name] = {stage: at[stage] for stage in (*case.stages, "the end")}
    by_way = Counter(how for d in done for how, _ in d["way"])
    failures = [d for d in done if d["outcome"] != "identical"]
    about = {"cases": cases, "stages": stages, "ways": dict(by_way)}
    return {**counts, **about, "minutes": round(seconds / 60, 1), "failures": failures}


def store(found):
    "Write what came of it to the publication, after each command, so that a harness that is killed has said it."
    path = ROOT / "figures/reliability/reliability.json"
    path.parent.mkdir(exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    kept = {name: known[name] for name in ("inputs", "others", "memory_gib") if name in known}
    path.write_text(json.dumps({**kept, **found}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300, help="commands that are killed, some of them twice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--minutes", type=float, default=60, help="stop after this time")
    parser.add_argument("--others", action="store_true", help="two runs at once, and Ctrl-C")
    parser.add_argument("--memory", action="store_true", help="ten methods in one process")
    parser.add_argument("--write", action="store_true", help="write figures/reliability/reliability.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as work:
        say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
        found = tally(given, given.cases.split(","), Path(work), say)
    if given.write:
        store(found)
    print(json.dumps(found))
    sys.exit(found["commands"] != found["identical"])


if __name__ == "__main__":
    main()
