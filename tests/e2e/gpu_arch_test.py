"""Every architecture with 16-bit weights on the GPU's kernels (emulated): the logits of a prompt and of what follows are
the processor's."""
import glob
import os
import sys

import logits
from machine import Machine

BIN = sys.argv[1]
DATA = os.path.join(os.path.dirname(os.getcwd()), 'shared', 'data', 'archs')
TOLERANCE = 1e-4
PROMPT = range(3, 41)
FOLLOWING = ('--gen', '2')


def main():
    models = sorted(glob.glob(os.path.join(DATA, '*-F16.gguf')))
    if not models:
        print(f'SKIPPED: no models in {DATA}')
        sys.exit(77)
    machine = Machine(BIN)
    bad = 0
    for model in models:
        name = os.path.basename(model).split('-')[0] if 'gpt-oss' not in model else 'gpt-oss'
        expected, _ = logits.compute(BIN, model, PROMPT, 'cpu', more=FOLLOWING)
        got, said = logits.compute(BIN, model, PROMPT, 'gpu', machine.env, FOLLOWING)
        error = 1.0
        if got is not None and len(got) == len(expected):
            error = logits.nmse(got, expected) ** 0.5
        ok = error < TOLERANCE
        what = f'{error:.1e}' if got is not None else said[-300:]
        print(f'{"ok" if ok else "FAILED"}: {name}: {what}')
        bad += not ok
    sys.exit(1 if bad else 0)


main()
