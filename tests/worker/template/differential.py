#!/usr/bin/env python3
"""Renders random templates with our interpreter and with Jinja2; they must say the same.
usage: differential.py PROGRAM [first seed] [number]"""
import json
import subprocess
import sys

import oracle
from generate import case


def main():
    program = sys.argv[1]
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    number = int(sys.argv[3]) if len(sys.argv) > 3 else 2200
    cases = [case(seed) for seed in range(first, first + number)]
    lines = "".join(json.dumps(c) + "\n" for c in cases)
    ours = subprocess.run([program], input=lines, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in ours.stdout.split("\n")[:-1]]
    assert len(answers) == number, f"{len(answers)} answers to {number} templates"
    wrong = failed = apart = 0
    for seed, c, answer in zip(range(first, first + number), cases, answers):
        kind, text = oracle.render(c["template"], c["context"], c["now"])
        failed += kind == "error"
        refused = answer.get("error", "")
        if " object at 0x" in text or "64 bits" in refused or "fractional power" in refused:
            apart += 1  # an address, a large integer or a complex number, which only Python has
            continue
        if kind == "output":
            same = answer.get("output") == text
        elif kind == "raised":
            same = answer.get("error") == text.encode()[:319].decode(errors="ignore")
        else:
            same = "error" in answer
        if not same:
            wrong += 1
            if wrong <= 5:
                print(f"seed {seed}: {c['template']!r}\n  context {c['context']!r}\n"
                      f"  Jinja2 {kind}: {text!r}\n  ours: {answer!r}")
    print(f"{number} templates, {failed} of them fail in Jinja2, {apart} cannot be compared, "
          f"{wrong} differ")
    sys.exit(wrong > 0 or apart > number / 20)


main()
