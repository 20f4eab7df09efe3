"""What lies in `figures/`: writes its README, and says which files nothing reads.

    python figures/describe.py            # or `make figures`

A column is explained once, in `COLUMNS`; tests/test_figures.py fails for one that is not.
"""
import ast
import csv
import gzip
import json
import re
from pathlib import Path

FIGURES = Path(__file__).parent
ROOT = FIGURES.parent
ABOUT = {  # publication: what it is
    "as_original": "The original's implicit loss as its code has it, SmolLM2-135M, one seed (`compare.ipynb`).",
    "as_original_gemma": "The same with Gemma-3-270m (`compare.ipynb`).",
    "benchmark": "How long each stage takes beside others, with its target (`benchmark.ipynb`).",
    "compare": "Five methods, three seeds, on the same answers of SmolLM2-135M (`compare.ipynb`).",
    "controls": "Controls, and the original's implicit loss done right, SmolLM2-135M, one seed (`compare.ipynb`).",
    "controls_gemma": "The same with Gemma-3-270m (`compare.ipynb`).",
    "exploratory": "Three more objectives, one seed each (`compare.ipynb`).",
    "explorer": "What the explorer opens with (`explore.ipynb`, `figures/explorer.py`).",
    "facts": "How many of the embedded questions SmolLM2-135M answers right, by relation (`make_facts.ipynb`).",
    "fair_asking": "The untrained SmolLM2-135M, asked by six prompts (`fair_asking.ipynb`).",
    "fair_asking_gemma": "The same with Gemma-3-270m (`fair_asking.ipynb`).",
    "gemma": "Five methods with Gemma-3-270m, one seed (`compare.ipynb`).",
    "interval_coverage": "How often a 95 % interval contains the truth, simulated (`02c_interval_checks.ipynb`).",
    "judge_audit": "The judge by rules against people (`judge_audit.ipynb`).",
    "larger_models": "Larger models, from predictions that others published, named there (`larger_models.ipynb`).",
    "main_finding": "What results and README open with, drawn from `matrix` and `text` (`figures/redraw.py`).",
    "matrix": "Ten methods by nine readouts (`matrix.ipynb`).",
    "original_repository": "The original's evaluation of five methods and two models (`original_again.ipynb`).",
    "paper": "The original's training, on SmolLM2-135M (`compare.ipynb`).",
    "reliability": "Killed runs, and what the same command made of them (`reliability.ipynb`).",
    "run_method": "The main job: one method beside the untrained model (`run_method.ipynb`).",
    "text": "Methods that teach the text (`compare.ipynb`).",
    "transfer": "Other relations, other question sets, another model (`transfer.ipynb`).",
    "whose_knowledge": "The study of self-knowledge that `study_plan.ipynb` plans (`benchmarks/study.py`).",
    "what_models_know": "Accuracy by question set, and the AUROC that each set can show (`what_models_know.ipynb`).",
}
FILES = {  # name, or publication/name: what it is
    "made_by.txt": "Command, code, seeds, and the tolerances of `make reproduce`.",
    "runs.json": "Each run's parameters, versions, device, and the code and seconds of each stage.",
    "readings.csv.gz": "A line for each confidence in an answer: what all numbers can be made from again.",
    "models.csv": "A row for each model, training and readout.",
    "published.csv": "A row for each value that the authors of the predictions printed.",
    "methods.csv": "The table of the comparison, as text, a row for each method and readout.",
    "values.csv": "Each metric of each cell on the calibration split, methods in rows, readouts in columns.",
    "scores.csv": "Metrics by place, as text.",
    "facts/accuracy.csv": "A row for each relation.",
    "answers.csv.gz": "Both models' greedy answers to the questions of the study, judged by rules.",
    "samples.csv.gz": "Ten sampled answers of each model to each question of the study.",
    "verdicts_read.csv.gz": "Whether each test answer of both models is right, read a second time.",
    "agreement_read.csv.gz": "480 pairs of an answer and a sample: whether a reader takes them for the same.",
    "choice.csv": "A row for each reader, answers and setting that were tried on the calibration split.",
    "facts_answers.csv.gz": "Both models' greedy answers to the 1,000 embedded questions, judged by rules.",
    "audit.csv": "A row for each judge.",
    "read_and_unread.csv": "A row for each judge, kind of answer, question set, and part that was read or not.",
    "simpleqa_verdicts_read.csv": "A hundred of the rules' verdicts, read by hand.",
    "accuracy_by_set.csv": "A row for each model and question set.",
    "predictions.csv.gz": "Answers to the test questions of `run_method`, verdicts, and four confidences in each.",
    "explorer/explorer": "The explorer in JupyterLab.",
    "prompts.csv": "A row for each split, prompt and readout, as text.",
    "pattern.csv": "A row for each model and method: the original's error, predicted and measured, and honest metrics.",
    "reliability.json": "Killed commands: how many ended identical, different, stuck, or with files left over.",
    "benchmark.json": "A row for each stage and what it is compared with: ratio, target or limit, n, seconds, threads.",
    "benchmark/ratios": "Each ratio beside its target.",
    "coverage.csv": "A row for each forecaster, size and metric.",
    "judge_band.csv": "The judge's band: a row for each forecaster, judge, size and metric.",
    "seeds.csv": "Two methods, equal or not: a row for each metric, number of seeds, seed sd and claim.",
    "compare/expected": "Reliability by the expected confidence, and forests of Brier skill and AUROC.",
    "fair_asking/prompts": "Brier skill and AUROC of each prompt's text on the test split, with 95 % intervals.",
    "original_repository/pattern": "The original's error, predicted and measured, and AUROC on other questions.",
    "text/verbalized": "Reliability of the text's confidence, and forests of Brier skill and AUROC.",
    "main_finding/main_finding": "Brier skill and AUROC of four ways to a confidence, with 95 % intervals.",
    "matrix/heatmaps": "The matrix of each metric.",
    "larger_models/larger_models": "Share of the most frequent stated value, and AUROC, by size.",
    "transfer/forests": "Brier skill and AUROC in each place.",
    "run_method/sft": "Reliability of the untrained and the trained model.",
    "facts/accuracy": "Accuracy by relation, with intervals.",
    "judge_audit/audit": "Sensitivity and specificity of each judge, with intervals.",
    "judge_audit/short_and_sentences": "The same on short answers and on sentences.",
    "what_models_know/accuracy_by_set": "Accuracy by question set, with intervals.",
}
LIMITS = "limit of the 95 % Wilson interval."
COLUMNS = {  # of all files; publication/column where it means something else there
    "AUROC": "Chance that a right answer has a higher confidence than a wrong one, with its 95 % interval.",
    "AUROC stratified by relation": "The same within relations, averaged.",
    "Brier skill": "1 - Brier score / that of always saying the training accuracy, with its 95 % interval.",
    "Brier skill - baseline": "Paired difference to the untrained model, with its 95 % interval.",
    "RMS calibration error": "Root mean square gap of confidence and accuracy in 100 bins; its noise floor.",
    "accepts of possibly correct": "Share of answers that people call possibly correct and the judge accepts.",
    "answer": "A fixed answer of a model.",
    "sample": "A sampled answer to the same question, worded otherwise.",
    "sampled_from": "The model that it was sampled from.",
    "same": "Whether a reader takes answer and sample for the same.",
    "weight": "Pairs of the test that each line stands for.",
    "accuracy": "Share of right answers.",
    "agreement": "Share of definite answers on which judge and people agree.",
    "intervals for": "These adapters (seeds fixed) or the method (seeds drawn).",
    "resampled": "What was drawn for intervals: groups of questions, or relations.",
    "claim": "These adapters (seeds fixed) or the method (seeds drawn).",
    "seed_sd": "Standard deviation of the metric between trainings of a method.",
    "difference": "Of the two methods, on average over trainings.",
    "rejected": "Share of intervals without 0.",
    "calibrator": "What recalibrated the confidence on the calibration split; empty: as read.",
    "confidence": "Between 0 and 1; empty where there is none.",
    "correct": "Number of right answers.",
    "coverage": "Share of the offered intervals that contain the truth.",
    "debiased calibration error": "RMS calibration error without the part that chance adds, with its 95 % interval.",
    "diagnosis": "The first finding of `diagnose`.",
    "distinct values": "How many different confidences, a mean over seeds.",
    "evaluation time (s)": "Wall-clock seconds of reading calibration and test questions, a mean over seeds.",
    "forecaster": "Who states the confidences.",
    "group": "The question's subject; resampled as one.",
    "high": f"Upper {LIMITS}",
    "id": "The question's.",
    "is_correct": "Whether the answer was judged right.",
    "judge": "The rules, or a simple way to match.",
    "kind": "Short answers of a reader, or sentences of language models.",
    "low": f"Lower {LIMITS}",
    "mean confidence": "With its 95 % interval.",
    "answers": "Accepted answers.",
    "method": "What was trained; `baseline` is the untrained model, question-only baselines have their names.",
    "metric": "Which metric.",
    "model": "Which model answered.",
    "answers_of": "The model that answered.",
    "reader": "The model that was trained and read.",
    "size": "Unlabelled questions that it was trained on.",
    "samples": "A JSON list.",
    "learning_rate": "The highest of the schedule.",
    "epochs": "How often each row was seen.",
    "auroc": "Stratified by relation, of the expected confidence on the calibration split.",
    "model_answer": "What it answered.",
    "n": "Answers.",
    "not_attempted": "Share of answers that do not try.",
    "offered": "Trials with enough right and wrong answers for an interval.",
    "parsed": "Share of answers with a confidence.",
    "place": "The question set, part of one, or model.",
    "prompt": "How the confidence was asked for, a name in `PROMPTS`.",
    "provenance": "How the number was come by: parsed, repaired, scored, filled, missing.",
    "question": "As it was asked.",
    "readout": "What the confidence was read from.",
    "reason": "Why the rules decided so.",
    "relation": "The kind of question.",
    "verdict": "correct, incorrect or not_attempted, by the rules.",
    "right": "1 where reading found that the answer is right.",
    "rows": "Whether the questions were read while the rules were written.",
    "seed": "Of the training.",
    "seeds": "How many.",
    "sensitivity": "Share of people's right answers that the judge accepts.",
    "sensitivity high": f"Upper {LIMITS}",
    "sensitivity low": f"Lower {LIMITS}",
    "set": "The question set.",
    "smallest_auroc": "The smallest AUROC that as many right and wrong answers distinguish from 0.5.",
    "smooth ECE": "Calibration error with a kernel in place of bins; its noise floor.",
    "specificity": "Share of people's wrong answers that the judge does not accept.",
    "specificity high": f"Upper {LIMITS}",
    "specificity low": f"Lower {LIMITS}",
    "split": "train, calibration or test.",
    "training data": "What the method was trained on.",
    "training time (s)": "Wall-clock seconds with the making of labels, a mean over seeds.",
    "trials": "Simulated experiments.",
    "truth": "The value in a large population.",
    "width": "Mean width of the interval.",
    "interval_coverage/n": "Questions in each experiment.",
    "interval_coverage/judge": "Whose errors depend on the confidence, or do not.",
    "audit": "Answers whose truth is known, from which the judge's errors are counted.",
    "skill, missing as 0": "Brier skill over all answers, where one without a confidence counts as for the constant.",
    "chosen": "Whether the prompt was chosen on the calibration split.",
    "original_repository/n": "Training questions, which the original's evaluation asks again.",
    "original_repository/right": "Share of their answers that are right.",
    "unreadable": "Share of texts in which the original finds no confidence.",
    "predicted RMS": "The error if what is read says nothing about which answers are right.",
    "RMS": "The error that the original's evaluation prints.",
    "mean probability": "Mean geometric mean probability of the tokens just written.",
    "predicted RMS by probability": "The predicted error of these probabilities.",
    "RMS by probability": "What the original's evaluation prints for them.",
    "test n": "Number of test questions of the honest evaluation.",
    "Brier skill low": "Lower limit of its 95 % interval.",
    "Brier skill high": "Upper limit of its 95 % interval.",
    "AUROC low": "Lower limit of its 95 % interval.",
    "AUROC high": "Upper limit of its 95 % interval.",
}
COLUMNS |= {
    "larger_models/accuracy": "Share of right answers.",
    "larger_models/AUROC": "Chance that a right answer has a higher confidence than a wrong one.",
    "larger_models/Brier skill": "1 - Brier score / that of always saying this model's own accuracy.",
    "larger_models/diagnosis": "What `diagnose` finds, the first as headline.",
    "larger_models/distinct values": "How many different confidences, at two decimals.",
    "larger_models/mean confidence": "Of the answers with one.",
    "larger_models/n": "Answers with a confidence.",
    "larger_models/metric": "What was printed; where it is a calibration error, with what bins.",
    "larger_models/readout": "Stated in the text, a probability of the answer, or a classifier's.",
    "source": "The project that published the predictions.",
    "training": "As released, or what it was trained with since.",
    "billions": "Billions of parameters, where they are published.",
    "most frequent": "The confidence that stands most often, at two decimals.",
    "modal share": "Its share.",
    "AUROC within domains": "AUROC within the kinds of questions, averaged.",
    "published": "What its authors printed.",
    "here": "The same from their predictions, by this library.",
    "larger_models/difference": "Without a sign.",
}
MEASURED = ("accuracy", "mean confidence", "Brier skill", "AUROC", "AUROC within domains")
COLUMNS |= {f"larger_models/{name} low": "Lower limit of its 95 % interval." for name in MEASURED}
COLUMNS |= {f"larger_models/{name} high": "Upper limit of its 95 % interval." for name in MEASURED}
COLUMNS |= {"modal share low": f"Lower {LIMITS}", "modal share high": f"Upper {LIMITS}"}
READOUTS = (  # columns of the matrix
    "verbalized",
    "expected",
    "verbalized_sampled",
    "p_true",
    "normalized_probability",
    "sequence_probability",
    "self_consistency",
    "linguistic",
    "probe",
)
COLUMNS |= {f"matrix/{readout}": f"The metric by `{readout}`." for readout in READOUTS}


def publications():
    "The folders, in alphabetical order."
    return sorted(folder for folder in FIGURES.iterdir() if (folder / "made_by.txt").exists())


def explained(table, publication, name):
    "The sentence about a file or column: the publication's own, else the common one. Raises KeyError for none."
    own = f"{publication}/{name}"
    return table[own] if own in table else table[name]


def columns(path):
    "The header of a CSV file."
    read = gzip.open if path.suffix == ".gz" else open
    with read(path, "rt", encoding="utf-8") as f:
        return next(csv.reader(f))


def file_line(path):
    "A line of the table of files."
    drawn = path.suffix in (".png", ".svg")
    about = explained(FILES, path.parent.name, path.stem if drawn else path.name)
    return f"| [{path.name}]({path.parent.name}/{path.name}) | {about} |"


def section(folder):
    "What the README says of a publication."
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    lines = [f"## {folder.name}", "", ABOUT[folder.name], "", "| file | what it is |", "|---|---|"]
    lines += map(file_line, files)
    for path in files:
        if ".csv" in path.suffixes:
            lines += ["", f"| column of {path.name} | |", "|---|---|"]
            lines += [f"| {name} | {explained(COLUMNS, folder.name, name)} |" for name in columns(path)]
    return "\n".join(lines)


def readme():
    "The whole of `figures/README.md`."
    intro = (
        "# Figures, and what they are drawn from\n\n"
        "A folder for each publication: its figures, its table, the readings that all of it can be made from again,\n"
        "and `made_by.txt`, which says by which command, code and seeds. `make reproduce NAME=compare` runs such a\n"
        "command into a fresh folder and compares what comes out with what lies here. This page is written by\n"
        "`make figures`."
    )
    return "\n\n".join([intro, *map(section, publications())]) + "\n"


def strings_of(source):
    "The strings of Python code as patterns; what an f-string puts in is a part of a name."
    source = re.sub(r"^[%!].*$", "", source, flags=re.M)
    patterns, inside = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            inside |= set(map(id, node.values))
            patterns.add("".join(pattern_of(part) for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            patterns.add(re.escape(node.value))
    return patterns


def pattern_of(part):
    "A part of an f-string, as a regular expression."
    return re.escape(part.value) if isinstance(part, ast.Constant) else "[^/]+"


def read_by(path):
    "The patterns of file names in a notebook, a page or a script."
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return strings_of(text)
    cells = json.loads(text)["cells"] if path.suffix == ".ipynb" else [{"cell_type": "markdown", "source": text}]
    patterns = set()
    for cell in cells:
        source = "".join(cell["source"])
        named = {re.escape(name) for name in re.findall(r"figures/[\w./-]+", source)}
        patterns |= strings_of(source) if cell["cell_type"] == "code" else named
    return patterns


def readers():
    "What may read a published file."
    scripts = [*ROOT.glob("tests/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("figures/*.py")]
    return [*ROOT.glob("nbs/*.ipynb"), *ROOT.glob("*.md"), *scripts]


def names_a_file(pattern):
    "Whether a pattern has a folder, and a word of its own in the file's name."
    folder, slash, name = pattern.rpartition("/")
    return bool(slash) and re.search(r"\w{3}", name.replace("[^/]+", "")) is not None


def unread():
    "Files that no reader names; SVG and PNG are one figure. Never `made_by.txt` nor `runs.json`."
    patterns = {p for reader in readers() for p in read_by(reader) if names_a_file(p)}
    known = re.compile("|".join(f"(?:figures/)?(?:{p.removeprefix('figures/')})" for p in sorted(patterns)))
    found = []
    for folder in publications():
        for file in sorted(folder.iterdir()):
            drawn = file.suffix in (".png", ".svg")
            names = [file.with_suffix(suffix) for suffix in (".png", ".svg", "")] if drawn else [file]
            read = any(known.fullmatch(f"{folder.name}/{name.name}") for name in names)
            if not read and file.name not in ("made_by.txt", "runs.json"):
                found.append(f"{folder.name}/{file.name}")
    return found


if __name__ == "__main__":
    (FIGURES / "README.md").write_text(readme(), encoding="utf-8")
    print(*[f"nothing reads {name}" for name in unread()], sep="\n")
