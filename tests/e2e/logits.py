"""Logits of a prompt by the tool of that name, golden files, and the distance between two."""
import array
import json
import os
import subprocess
import tempfile


def read(path):
    """(header, float32 values of all rows)."""
    with open(path, 'rb') as f:
        data = f.read()
    end = data.index(b'\n')
    values = array.array('f')
    values.frombytes(data[end + 1:])
    return json.loads(data[:end]), values


def compute(bin_dir, model, ids, device, env=None, more=()):
    """(values or None, what stderr says)."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, 'logits')
        done = subprocess.run(
            [os.path.join(bin_dir, 'rocmforge-worker'), 'logits', '-m', model, '--device', device, '--ctx-size', '128',
             '--parallel', '1', '--tokens', ','.join(str(i) for i in ids), '-o', out, *more],
            env={**os.environ, **(env or {})}, capture_output=True, text=True)
        return (read(out)[1] if done.returncode == 0 else None), done.stderr


def nmse(got, exact):
    return sum((a - b) ** 2 for a, b in zip(got, exact)) / sum(b * b for b in exact)
