"""The pins of constraints.txt against the known vulnerabilities of PyPI, by pip-audit: `python tests/audit.py`.

Exit code 1 where one of them is known to be vulnerable. Where their list cannot be reached, or does not know a package,
that is said as 'not checked', and is no failure: a machine without a network has no news.
"""
import json
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parent.parent / "constraints.txt"
AUDIT = ["pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--requirement"]


def audited(pins):
    "What pip-audit prints for a file of pins, as JSON; and its last line of trouble, where it printed none."
    done = subprocess.run([sys.executable, "-m", *AUDIT, str(pins)], capture_output=True, text=True)
    trouble = done.stderr.strip().splitlines()[-1:] or ["no answer"]
    return (json.loads(done.stdout) if done.stdout.strip() else None), trouble[0]


def vulnerable(dependency):
    "A line for a package with known vulnerabilities; empty for one without."
    found = []
    for known in dependency.get("vulns", []):
        found.append(f"{known['id']} (mended in {', '.join(known['fix_versions']) or 'no version'})")
    return f"{dependency['name']} {dependency['version']}: {'; '.join(found)}" if found else ""


def report(answer, trouble):
    "The lines to print, and the exit code."
    if answer is None:
        return [f"not checked: the list of vulnerabilities cannot be read ({trouble})"], 0
    packages = answer["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    lines = list(filter(None, map(vulnerable, packages)))
    checked = len(packages) - len(skipped)
    if skipped:
        lines.append(f"not checked: {len(skipped)} of {len(packages)} pins, which the list does not know")
    if checked:
        lines.append(f"{checked} pins checked, {sum(map(bool, map(vulnerable, packages)))} with known vulnerabilities")
    return lines, int(any(map(vulnerable, packages)))


if __name__ == "__main__":
    lines, code = report(*audited(PINS))
    print("\n".join(lines))
    sys.exit(code)
