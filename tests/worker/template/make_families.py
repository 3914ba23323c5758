#!/usr/bin/env python3
"""Writes families.jsonl: what Jinja2 makes of every template of families/ in every context of
contexts.json. Run it again after a change to either.
usage: make_families.py > families.jsonl"""
import json
import pathlib

import oracle

NOW = 1700000000
here = pathlib.Path(__file__).parent
contexts = json.loads((here / "contexts.json").read_text())
for path in sorted((here / "families").glob("*.jinja")):
    answers = {}
    for name, context in contexts.items():
        kind, text = oracle.render(path.read_text(), context, NOW)
        answers[name] = {kind: text if kind != "error" else ""}
    print(json.dumps({"family": path.stem, **answers}, ensure_ascii=False, separators=(",", ":")))
