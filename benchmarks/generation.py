"""Greedy answers, ten samples a question and whole responses: CPU seconds of this code, of another checkout of it
(`git worktree add CHECKOUT COMMIT`) and of transformers' `generate`, in turns, one thread, the same model and prompts.
A JSON line for each comparison.

    python benchmarks/generation.py --old CHECKOUT [--n 24] [--rounds 3] [greedy samples joint]"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parents[1]
TEMPERATURE = 0.7
STAGES = {  # how it is called: name in the table, questions for each asked, how `generate` is used at its best
    "greedy": ("greedy answers", 1, "one at a time"),
    "samples": ("ten samples a question", 4, "generate(num_return_sequences=10)"),
    "joint": ("joint evaluation", 1, "one at a time"),
}


def prompts_of(lm, n, whole):
    "Of every so many of the facts: for an answer, or for a whole response."
    from calib_nb.models import TextFormat
    from calib_nb.questions import load_questions

    fmt = TextFormat(lm.tokenizer, chat_template=whole)
    facts = load_questions("facts")
    chosen = facts[:: len(facts) // n][:n]
    return [fmt.encode(fmt.prompt(q.question) if whole else fmt.answer_prompt(q.question)) for q in chosen]


def written(lm, prompts, stage):
    "The texts of a stage, a list for each prompt."
    from calib_nb.models import continue_greedily, sample_responses
    from calib_nb.readout import Sampling, sample_texts

    if stage == "greedy":
        return [[text] for text in continue_greedily(lm, prompts, 24)]
    if stage == "joint":
        return [[text] for text in sample_responses(lm, prompts, 0, max_new_tokens=100)]
    how = Sampling(10, TEMPERATURE, 24)
    return sample_texts(lm, prompts, [how.uniforms(0, str(prompt)) for prompt in prompts], how.temperature)


def generated(lm, prompts, stage):
    "The same by `generate`: prompts one at a time, or six with ten samples each, which is quickest."
    import torch

    size, samples, most = {"greedy": (1, 1, 24), "samples": (6, 10, 24), "joint": (1, 1, 100)}[stage]
    drawn = {"greedy": {}, "samples": {"do_sample": True, "temperature": TEMPERATURE}, "joint": {"do_sample": True}}
    how = {"do_sample": False, "num_return_sequences": samples, "max_new_tokens": most, "top_k": 0, **drawn[stage]}
    texts = []
    for start in range(0, len(prompts), size):
        batch = lm.tokenizer.pad({"input_ids": prompts[start : start + size]}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            ids = lm.model.generate(**batch, eos_token_id=lm.stop_tokens, pad_token_id=lm.pad_token, **how)
        new = lm.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        texts += [new[i : i + samples] for i in range(0, len(new), samples)]
    return texts


def work():
    "For each line `stage way n` that comes in, a line with CPU seconds, tokens and texts."
    import torch

    from calib_nb.models import load_model

    torch.set_num_threads(1)
    lm = load_model("smollm2-135m")
    ways = {"ours": written, "generate": generated}
    written(lm, prompts_of(lm, 2, False), "greedy")
    for line in sys.stdin:
        stage, way, n = line.split()
        prompts = prompts_of(lm, int(n), stage == "joint")
        start, began = time.process_time(), time.perf_counter()
        texts = ways[way](lm, prompts, stage)
        seconds, wall = time.process_time() - start, time.perf_counter() - began
        tokens = sum(len(lm.tokenizer(text).input_ids) + 1 for several in texts for text in several)
        print(json.dumps({"seconds": seconds, "wall": wall, "tokens": tokens, "texts": texts}), flush=True)


def worker(checkout):
    "A process that works with the code of a checkout."
    env = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, __file__, "work"], env=env, cwd=checkout, **pipes)


def ask(process, stage, way, n):
    process.stdin.write(f"{stage} {way} {n}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def compare(stage, sides, n, rounds, against):  # sides: two of (process, way)
    "A stage in turns. Sampled texts may be other ones, so there the seconds are those of a token."
    pairs = [[ask(process, stage, way, n) for process, way in sides] for _ in range(rounds)]
    share = [[side["tokens"] if stage != "greedy" else 1 for side in pair] for pair in pairs]
    times = [[side["seconds"] / part for side, part in zip(*both)] for both in zip(pairs, share)]
    clock = [[side["wall"] / part for side, part in zip(*both)] for both in zip(pairs, share)]
    texts = zip(*([text for several in side["texts"] for text in several] for side in pairs[0]))
    same = [a == b for a, b in texts]
    return {
        "stage": STAGES[stage][0],
        "against": against,
        "ratio": round(median(other / mine for mine, other in times), 3),
        "n": n,
        "ours_s": median(mine for mine, _ in times),
        "theirs_s": median(other for _, other in times),
        "ours_wall": median(mine for mine, _ in clock),
        "theirs_wall": median(other for _, other in clock),
        "per": "stage" if stage == "greedy" else "token",
        "same_texts": f"{sum(same)} of {len(same)}",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", default=[*STAGES], help="default: all")
    parser.add_argument("--old", help="another checkout of this repository")
    parser.add_argument("--n", type=int, default=64, help="questions; of ten samples a quarter")
    parser.add_argument("--rounds", type=int, default=2, help="of the comparison with the checkout")
    args = parser.parse_args()
    ours, theirs = worker(HERE), worker(Path(args.old).resolve()) if args.old else None
    others = [(ours, "generate", None)] + ([(theirs, "ours", Path(args.old).name)] if args.old else [])
    try:
        for stage in args.stages:
            _, less, at_its_best = STAGES[stage]
            for process, way, name in others:
                sides = [(ours, "ours"), (process, way)]
                rounds = args.rounds if name else 1  # one at a time takes minutes
                row = compare(stage, sides, args.n // less, rounds, name or at_its_best)
                print(json.dumps(row), flush=True)
    finally:
        ours.kill()
        if theirs:
            theirs.kill()


if __name__ == "__main__":
    work() if sys.argv[1:] == ["work"] else main()
