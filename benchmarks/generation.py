"""Greedy answers, ten samples a question and whole responses: CPU seconds of this code and of another checkout of it
(`git worktree add CHECKOUT COMMIT`), in turns, one thread, the same model and prompts. A JSON line for each stage.

    python benchmarks/generation.py CHECKOUT [greedy,samples,joint] [questions] [rounds]"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parents[1]


def prompts_of(lm, n, whole):
    "Of every so many of the facts: for an answer, or for a whole response."
    from calib_nb.models import TextFormat
    from calib_nb.questions import load_questions

    fmt = TextFormat(lm.tokenizer, chat_template=whole)
    facts = load_questions("facts")
    chosen = facts[:: len(facts) // n][:n]
    return [fmt.encode(fmt.prompt(q.question) if whole else fmt.answer_prompt(q.question)) for q in chosen]


def written(lm, stage, n):
    "The texts of a stage, a list for each prompt."
    from calib_nb.models import continue_greedily, sample_responses
    from calib_nb.readout import Sampling, sample_texts

    prompts = prompts_of(lm, n, stage == "joint")
    if stage == "greedy":
        return [[text] for text in continue_greedily(lm, prompts, 24)]
    if stage == "joint":
        return [[text] for text in sample_responses(lm, prompts, 0, max_new_tokens=100)]
    how = Sampling(10, 0.7, 24)
    return sample_texts(lm, prompts, [how.uniforms(0, str(prompt)) for prompt in prompts], how.temperature)


def work():
    "For each line `stage n` that comes in, a line with CPU seconds, tokens and texts."
    import torch

    from calib_nb.models import load_model

    torch.set_num_threads(1)
    lm = load_model("smollm2-135m")
    written(lm, "greedy", 2)
    for line in sys.stdin:
        stage, n = line.split()
        start = time.process_time()
        texts = written(lm, stage, int(n))
        seconds = time.process_time() - start
        tokens = sum(len(lm.tokenizer(text).input_ids) + 1 for several in texts for text in several)
        print(json.dumps({"seconds": seconds, "tokens": tokens, "texts": texts}), flush=True)


def worker(checkout):
    "A process that works with the code of a checkout."
    env = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, __file__, "work"], env=env, cwd=checkout, **pipes)


def ask(process, stage, n):
    process.stdin.write(f"{stage} {n}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def compare(ours, theirs, stage, n, rounds, against):
    "A stage in turns. Sampled responses are other ones, so there the seconds are those of a token."
    pairs = [(ask(ours, stage, n), ask(theirs, stage, n)) for _ in range(rounds)]
    unit = "tokens" if stage == "joint" else None
    times = [[side["seconds"] / (side[unit] if unit else 1) for side in pair] for pair in pairs]
    said = zip(*([text for several in side["texts"] for text in several] for side in pairs[0]))
    same = [a == b for a, b in said]
    return {
        "stage": stage,
        "against": against,
        "ratio": round(median(old / new for new, old in times), 3),
        "n": n,
        "ours_s": median(new for new, _ in times),
        "theirs_s": median(old for _, old in times),
        "per": "token" if unit else "stage",
        "same_texts": f"{sum(same)} of {len(same)}",
    }


def main(checkout, stages="greedy,samples,joint", n=64, rounds=3):
    ours, theirs = worker(HERE), worker(Path(checkout).resolve())
    try:
        for stage in stages.split(","):
            row = compare(ours, theirs, stage, int(n), int(rounds), Path(checkout).name)
            print(json.dumps(row), flush=True)
    finally:
        ours.kill()
        theirs.kill()


if __name__ == "__main__":
    work() if sys.argv[1] == "work" else main(*sys.argv[1:])
