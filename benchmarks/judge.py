"""CPU seconds and memory of judging made-up answers by rules: ten aliases each, right, wrong and in sentences, in the
forms that real answers have.

    python benchmarks/judge.py [number of answers, 50,000 where none is given]"""
import sys
import time
from collections import Counter

import numpy as np

from calib_nb.core import peak_memory_gib
from calib_nb.questions import load_questions
from calib_nb.rules import judge_by_rules

FORMS = (
    "{}",
    "It is {}.",
    "{}, which is well known. It has been so since 1950.",
    "not {}",
    "{} or Paris",
    "The answer to this is {} (as far as is known), in the north of it.",
    "{} and John Q. Smith, after 20 July 1969",
)
n = int(sys.argv[1]) if sys.argv[1:] else 50_000
rng = np.random.default_rng(0)
facts = load_questions("facts")
names = [q.answers[0] for q in facts]


def pick(k):
    "k names, drawn."
    return [names[i] for i in rng.integers(len(names), size=k)]


items = []
for i in range(n):  # no question stands twice and few aliases do, so that little is remembered from one to the next
    q = facts[i % len(facts)]
    made_up = [f"{a} {b}" for a, b in zip(pick(10), pick(10))]
    references = [*q.answers, *made_up][:10]
    said = references[0] if rng.random() < 0.5 else pick(1)[0]
    answer = FORMS[i % len(FORMS)].format(said)
    items.append((answer, references, f"{q.question} ({i})"))

start = time.process_time()
grades = Counter(judge_by_rules(*item).grade for item in items)
seconds = time.process_time() - start
memory = peak_memory_gib()
print(f"answers {n}  aliases 10  {dict(sorted(grades.items()))}  {seconds:.1f} s   peak {memory:.2f} GiB")
