"""CPU seconds and memory of finding near-duplicates among made-up questions.

Their embeddings are given: the embedding model's own time is not in it.

    python benchmarks/deduplicate.py [number of questions, 100,000 where none is given]"""
import sys
import time

import numpy as np

from calib_nb.core import Question, peak_memory_gib
from calib_nb.questions import group_alike

n = int(sys.argv[1]) if sys.argv[1:] else 100_000
dimensions = 384
share = 0.1  # the last tenth repeats questions before it in other words
cosine = 0.95  # how similar a question is to the one that it repeats

rng = np.random.default_rng(0)
vectors = rng.normal(size=(n, dimensions)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
originals = n - int(share * n)
noise = vectors[originals:] * np.float32(np.sqrt(1 / cosine**2 - 1))  # nearly at a right angle to everything else
vectors[originals:] = vectors[rng.integers(originals, size=n - originals)] + noise
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
questions = [Question(str(i), f"What is asked by question {i}?", ["this"]) for i in range(n)]

start, made = time.process_time(), peak_memory_gib()
_, counts = group_alike(questions, 0.9, embed=lambda texts, folder: vectors)
seconds = time.process_time() - start

print(f"questions {n}  groups {counts['groups']}  joined by similarity {counts['joined_by_similarity']}", end="  ")
print(f"{seconds:.1f} s   peak {peak_memory_gib():.2f} GiB, of it {made:.2f} before the search")
