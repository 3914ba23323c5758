"""Every architecture with 16-bit weights on the GPU's kernels (emulated): the logits of a prompt and of what follows are
the processor's; what has no kernel is refused by name."""
import array
import glob
import os
import subprocess
import sys
import tempfile

from machine import Machine

BIN = sys.argv[1]
DATA = os.path.join(os.path.dirname(os.getcwd()), 'shared', 'data', 'archs')
NOT_YET = {'deepseek2': 'heads', 'lfm2': 'conv', 'mamba2': 'conv', 'qwen35': 'conv', 'qwen35moe': 'conv', 'qwen3next': 'conv'}
TOLERANCE = 1e-4


def logits(model, device, env):
    """(values, what stderr says) of 40 rows."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, 'logits')
        done = subprocess.run(
            [os.path.join(BIN, 'rocmforge-worker'), 'logits', '-m', model, '--device', device, '--ctx-size', '128',
             '--parallel', '1', '--tokens', ','.join(str(i) for i in range(3, 41)), '--gen', '2', '-o', out],
            env={**os.environ, **env}, capture_output=True, text=True)
        if done.returncode != 0:
            return None, done.stderr
        with open(out, 'rb') as f:
            data = f.read()
    values = array.array('f')
    values.frombytes(data[data.index(b'\n') + 1:])
    return values, done.stderr


def main():
    models = sorted(glob.glob(os.path.join(DATA, '*-F16.gguf')))
    if not models:
        print(f'SKIPPED: no models in {DATA}')
        sys.exit(77)
    machine = Machine(BIN)
    bad = 0
    for model in models:
        name = os.path.basename(model).split('-')[0] if 'gpt-oss' not in model else 'gpt-oss'
        expected, _ = logits(model, 'cpu', {})
        got, said = logits(model, 'gpu', machine.env)
        if name in NOT_YET:
            ok = got is None and f'op {NOT_YET[name]}: no GPU kernel' in said
            what = 'refused by name'
        else:
            error = 1.0
            if got is not None and len(got) == len(expected):
                error = (sum((a - b) ** 2 for a, b in zip(got, expected)) / sum(b * b for b in expected)) ** 0.5
            ok = error < TOLERANCE
            what = f'{error:.1e}' if got is not None else said[-300:]
        print(f'{"ok" if ok else "FAILED"}: {name}: {what}')
        bad += not ok
    sys.exit(1 if bad else 0)


main()
