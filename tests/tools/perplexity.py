"""Perplexity beside llama.cpp's, for every tensor type: both compute the same files over the same chunks of
the same text. Nothing here runs with the suite: it needs llama.cpp's llama-perplexity and llama-quantize
(of the same state as the files, with the same instruction sets), the folder of development data, and some
hundred MB for models in all types, which llama-quantize makes from a trained one.

    perplexity.py BIN PEER DATA [--work DIR] [--only TEXT] [--chunks N] [--threads N] [--bound PERCENT]

BIN: the folder of `rocmforge`; PEER: that of llama-perplexity; DATA has quants/, trained/, text/.
Prints a table (Markdown) and exits with 1 when a file is further away than the bound.
"""
import argparse
import glob
import os
import re
import struct
import subprocess
import sys
import tempfile

FILE_TYPES = ('F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K_M Q4_K_M Q5_K_M Q6_K IQ4_NL IQ4_XS IQ3_S IQ3_XXS '
              'IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S TQ1_0 TQ2_0 Q1_0 Q2_0').split()
TENSOR_TYPES = 'mxfp4 nvfp4'.split()  # which no file type of a dense model names
CHUNK = 512


def run(command):
    r = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors='replace')
    return r.returncode, r.stdout + r.stderr


def matrices_of(rocmforge, model):
    """Names and columns of a model's matrices."""
    code, out = run([rocmforge, 'inspect', '--list-tensors', model])
    if code != 0:
        sys.exit(f'{model}: {out}')
    found = re.findall(r'^\s*(\S+\.weight)\s.*?(\d+) x (\d+)(?: x (\d+))?', out, re.M)
    return [(name, int(cols), int(experts or 1)) for name, cols, _, experts in found]


def write_importance(path, matrices):
    """The lowest types ask for an importance matrix: every column counts the same."""
    with open(path, 'wb') as f:
        f.write(struct.pack('<i', len(matrices)))
        for name, cols, experts in matrices:
            n = cols * experts
            f.write(struct.pack('<i', len(name)) + name.encode())
            f.write(struct.pack('<ii', 1, n) + struct.pack('<f', 1.0) * n)


def make_types(o, model):
    """The model in every type that llama-quantize makes of it."""
    made = []
    stem = os.path.basename(model).split('-')[0]
    importance = os.path.join(o.work, stem + '.imatrix')
    write_importance(importance, matrices_of(o.rocmforge, model))
    for t in FILE_TYPES + TENSOR_TYPES:
        to = os.path.join(o.work, f'{stem}-{t.upper()}.gguf')
        if o.only and o.only not in os.path.basename(to):
            continue
        if not os.path.exists(to):
            kind = (['--tensor-type', f'blk.*={t}', 'Q8_0'] if t in TENSOR_TYPES else [t])
            code, out = run([o.quantize, '--allow-requantize', '--imatrix', importance, *kind[:-1], model,
                             to + '.part', kind[-1], o.threads])
            if code != 0:
                print(f'<!-- {os.path.basename(to)} cannot be made: {out.strip().splitlines()[-1]} -->')
                continue
            os.rename(to + '.part', to)
        made.append(to)
    return made


def compare(o, model, text):
    """Prints a line; returns whether both are near enough to each other."""
    common = ['-m', model, '-f', text, '-c', CHUNK, '--chunks', o.chunks, '-t', o.threads]
    _, ours = run([o.rocmforge, 'perplexity', '--device', 'cpu', *common])
    _, theirs = run([o.perplexity, '-fa', 'on', '-b', CHUNK, '-tb', o.threads, *common])
    a = {int(n): float(v) for n, v in re.findall(r'(\d+) of \d+ chunks, ([\d.]+) so far', ours)}
    b = {int(n): float(v) for n, v in re.findall(r'\[(\d+)\]([\d.]+)', theirs)}
    both = max(set(a) & set(b), default=0)
    name = f'{os.path.basename(model)} | {os.path.basename(text)}'
    if not both:
        print(f'| {name} | none | | | ours: {ours.strip()[-80:]!r} theirs: {theirs.strip()[-80:]!r} |',
              flush=True)
        return False
    far = (a[both] / b[both] - 1) * 100
    is_near = abs(far) <= o.bound
    print(f'| {name} | {both} | {a[both]:.4f} | {b[both]:.4f} | {far:+.3f} % |'
          f'{"" if is_near else " **too far**"}', flush=True)
    return is_near


def main():
    p = argparse.ArgumentParser()
    p.add_argument('bin')
    p.add_argument('peer')
    p.add_argument('data')
    p.add_argument('--work', default=os.path.join(tempfile.gettempdir(), 'rocmforge-perplexity'))
    p.add_argument('--only', default='', help='files whose name contains this')
    p.add_argument('--chunks', type=int, default=64)
    p.add_argument('--threads', type=int, default=1)
    p.add_argument('--bound', type=float, default=0.2)
    o = p.parse_args()
    o.rocmforge = os.path.join(o.bin, 'rocmforge')
    o.perplexity = os.path.join(o.peer, 'llama-perplexity')
    o.quantize = os.path.join(o.peer, 'llama-quantize')
    for needed in (o.rocmforge, o.perplexity, o.quantize, os.path.join(o.data, 'quants')):
        if not os.path.exists(needed):
            sys.exit(f'{needed} is not there; see the beginning of {__file__}')
    os.makedirs(o.work, exist_ok=True)
    texts = {'stories': ['text/tinystories.txt'],
             'trained': ['trained/heldout-clean.txt', 'text/wiki.test.raw']}
    ok = True
    print('| file | text | chunks | ours | llama.cpp | difference |\n|---|---|---|---|---|---|', flush=True)
    for model in sorted(glob.glob(os.path.join(o.data, 'quants', '*.gguf'))):
        if o.only in os.path.basename(model):
            for text in texts['stories']:
                ok &= compare(o, model, os.path.join(o.data, text))
    for source in sorted(glob.glob(os.path.join(o.data, 'trained', '*.gguf'))):
        models = [source] if o.only in os.path.basename(source) else []
        for model in models + make_types(o, source):
            for text in texts['trained']:
                ok &= compare(o, model, os.path.join(o.data, text))
    return 0 if ok else 1


if __name__ == '__main__':
    sys.exit(main())
