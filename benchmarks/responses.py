"""Whether reading takes time in proportion to length: CPU seconds of 10 kB and of 100 kB of texts that repeat a piece.
The greatest ratio must be at most 15; exit code 1 where it is not.

    python benchmarks/responses.py"""
import sys
import time

from calib_nb.prompts import PROMPTS, parse_guesses
from calib_nb.responses import parse_confidence, parse_response, short_answer

PIECES = (
    "word |Answer: x\nConfidence: 0.9\n|Confidence: |Answer: |answer |my |\n|\t| |{|{\"|{\"a\":|{\"answer\": [|<think>|"
    "</think>|<think |\\|\\frac{|&#37;|&|%|9%25|½|²|1/2 |50/|0.1,|9.|1 in |1 out of a |1|0-|- |*|_|`|twenty |twenty-|"
    "point one |not |n't |(|[|confidence (|1. |G1: |G1:,|P1: x|on a scale of 0 to |\"|'|}"
).split("|")
READERS = {
    "response": parse_response,
    "confidence": parse_confidence,
    "percent": PROMPTS["percent"].unit.parse,
    "words": PROMPTS["words"].unit.parse,
    "short answer": short_answer,
    "guesses": parse_guesses,
}
LIMIT, SHORTEST = 15, 3e-3  # below that the clock decides


def seconds(reader, text):
    "The least of three, in CPU seconds."
    times = []
    for _ in range(3):
        start = time.process_time()
        reader(text)
        times.append(time.process_time() - start)
    return max(min(times), SHORTEST)


rows = []
for name, reader in READERS.items():
    for piece in PIECES:
        for head in ("", "Answer: x\nConfidence: "):
            long = head + piece * (100_000 // len(piece))
            short, whole = seconds(reader, long[:10_000]), seconds(reader, long)
            rows.append((whole / short, whole, name, head + piece))
rows.sort(reverse=True)
for ratio, whole, name, piece in rows[:5]:
    print(f"{name:12} {piece!r:40} 100 kB take {whole:.3f} s, {ratio:.1f} times 10 kB")
print(f"slowest 100 kB: {max(row[1] for row in rows):.3f} s")
sys.exit(rows[0][0] > LIMIT)
