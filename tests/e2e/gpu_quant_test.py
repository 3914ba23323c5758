"""Quantized weights on the GPU's kernels (emulated): how far the logits are from the exact ones, beside the
processor and llama.cpp, and that quantized experts are chosen as on the processor.

Both round activations to 8 bits and are about as far from exact. A mixture of experts jumps: where two experts' scores
almost tie, rounding picks another one, and that row is wholly other (NMSE 0.02 to 0.6). So only what rounds alike is
compared row by row: Q4_0, a scale for 32 on both. (Q4_1, Q5_0, Q5_1, Q1_0, Q2_0 and NVFP4 have one for 16 on the
processor, and a K type of odd width falls back to them: there the GPU's near-ties are others.)"""
import os
import subprocess
import sys
import tempfile

import logits
from machine import Machine

BIN = sys.argv[1]
DATA = os.path.join(os.path.dirname(os.getcwd()), 'shared', 'data')
N_ROWS = 64  # one step; products of many tokens
TYPES = ('Q4_0', 'Q8_0', 'Q4_K_M', 'Q6_K', 'IQ3_S')
N_MOE = 38  # 76 slots: sorted by expert, as are those of N_ROWS


def dense(machine, name):
    path = os.path.join(DATA, 'quants', f'stories260K-x256-{name}')
    header, exact = logits.read(path + '.exact.golden')
    peer = logits.read(path + '.peer.golden')[1]
    ids, n = header['prompt'][:N_ROWS], N_ROWS * header['n_vocab']
    cpu = logits.compute(BIN, path + '.gguf', ids, 'cpu')[0]
    gpu, said = logits.compute(BIN, path + '.gguf', ids, 'gpu', machine.env)
    if cpu is None or gpu is None or len(gpu) != n:
        print(f'FAILED: {name}: {said[-300:]}')
        return False
    far = {who: logits.nmse(x[:n], exact[:n]) for who, x in (('peer', peer), ('cpu', cpu), ('gpu', gpu))}
    ok = far['gpu'] <= 1.1 * far['peer'] and far['gpu'] <= 1.5 * far['cpu']
    print(f'{"ok" if ok else "FAILED"}: {name:7}', *(f'{who} {d:.2e}' for who, d in far.items()), flush=True)
    return ok


def experts(machine, ids, name):
    """Each row beside the processor's. Tells the rows that are far from exact: other experts, there or before."""
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, 'moe.gguf')
        source = os.path.join(DATA, 'archs', 'llama-moe-F16.gguf')
        subprocess.run([os.path.join(BIN, 'rocmforge-worker'), 'quantize', source, model, name], check=True,
                       capture_output=True)
        exact = logits.compute(BIN, model, ids, 'cpu', more=('--isa', 'scalar'))[0]
        cpu = logits.compute(BIN, model, ids, 'cpu')[0]
        gpu, said = logits.compute(BIN, model, ids, 'gpu', machine.env)
    if not exact or not cpu or not gpu or len(gpu) != len(exact):
        print(f'FAILED: llama-moe {name}: {said[-300:]}')
        return False
    width = len(exact) // len(ids)
    rows = [slice(i, i + width) for i in range(0, len(exact), width)]
    other = [i for i, r in enumerate(rows) if logits.nmse(cpu[r], exact[r]) > 1e-2]
    worst = max(logits.nmse(gpu[r], cpu[r]) for r in rows)
    far = {who: logits.nmse(x, exact) for who, x in (('cpu', cpu), ('gpu', gpu))}
    ok = worst < 2e-3 and far['gpu'] <= 1.1 * far['cpu']
    print(f'{"ok" if ok else "FAILED"}: llama-moe {name}', *(f'{who} {d:.2e}' for who, d in far.items()),
          f'gpu from cpu {logits.nmse(gpu, cpu):.1e}, worst row {worst:.1e}; far from exact: rows {other}',
          flush=True)
    return ok


def main():
    if not os.path.isdir(os.path.join(DATA, 'quants')):
        print(f'SKIPPED: no models in {DATA}')
        sys.exit(77)
    machine = Machine(BIN)
    # Row 19 of this prompt is a near-tie in layer 0: expert 0 is before 3 by 0.006, rounding moves scores by 0.013.
    golden = logits.read(os.path.join(DATA, 'archs', 'llama-moe-F16.exact.golden'))[0]['prompt']
    results = [dense(machine, name) for name in TYPES]
    results += [experts(machine, list(range(3, 3 + N_MOE)), 'Q4_0'), experts(machine, golden[:N_ROWS], 'Q4_0')]
    sys.exit(0 if all(results) else 1)


main()
