"""Every kernel fails, on the emulator, in whatever way a step runs it: at its first launch, which is one by one, and at its
last, mostly in a replayed step. The process ends with the exit code of a GPU fault and names the kernel in its last words; so
it does when a kernel never ends. What computes NaN is computed again another way, or ends as an error
that says so, not as text.

    gpu_fault_test.py BIN [all]      without "all": every third kernel of the demo model, in one way
"""
import collections
import concurrent.futures
import os
import queue
import subprocess
import sys
import tempfile

from machine import Machine
from server import check

BIN = sys.argv[1]
ALL = 'all' in sys.argv[2:]
DATA = os.path.join(os.path.dirname(os.getcwd()), 'shared', 'data', 'archs')
DEMO = 'deploy/demo/forge-tiny-Q8_0.gguf'
MADE = ('Q4_0', 'Q4_K_M', 'Q5_0', 'F16', 'BF16', 'F32')
ARCHS = ('llama-moe', 'mamba2-dense', 'qwen35moe-moe', 'gemma2-dense', 'deepseek2-moe', 'phi2-dense')
FAULT_CODE, ABORTED = 20, -6
QUICK = ('hang', 'sticky', 'failure')
TIMEOUT = '0.5'  # of a device that does not answer: here a launch computes, and nothing that is sound is waited for
NO_FLOATS = ('order', 'top_part', 'top_fold')  # what they give are numbers of rows
# Launched by the preflight alone, see e2e/gpu_test.
OF_PREFLIGHT = ('probe',)


def table():
    """The names of all kernels."""
    out = subprocess.run(['nm', '-D', os.path.join(os.path.dirname(BIN), 'tests/hip_double/libamdhip64.so.6')],
                         capture_output=True, text=True, check=True).stdout
    names = [line.split()[-1] for line in out.splitlines()]
    return sorted(n[:-len('_kernel')] for n in names if n.endswith('_kernel'))


def models(folder):
    """Paths, each with the tool that runs it (`bench` leaves logits on the device) and more options."""
    for path in paths(folder) if ALL else ():  # small ones first: a kernel fails in the first that runs it
        yield path, 'logits'
    yield DEMO, 'bench'
    yield DEMO, 'logits'
    if not ALL:
        return
    yield DEMO, 'logits', '--kv-type', 'q8_0'
    yield DEMO, 'logits', '--kv-type', 'f32'
    # Positions of more than one split.
    yield DEMO, 'logits', '--ctx-size', '512', '--tokens', ','.join(str(i) for i in range(3, 263))


def paths(folder):
    for kind in MADE:
        path = os.path.join(folder, f'{kind}.gguf')
        subprocess.run([os.path.join(os.path.dirname(BIN), 'tests/make_model'), '--shape', 'tiny', '--type', kind, '-o', path],
                       check=True, capture_output=True)
        yield path
    for name in ARCHS:
        path = os.path.join(DATA, f'{name}-F16.gguf')
        if os.path.exists(path):
            yield path


def compute(run, machine, rules=''):
    """(exit code, what stderr says). A prompt of two chunks, and enough tokens for steps that are replayed unchecked."""
    model, tool, *more = run
    args = {'logits': ['--tokens', ','.join(str(i) for i in range(3, 55)), '--gen', '8', '-o', '/dev/null'],
            'bench': ['--prompt', '16', '--generate', '8', '--depth', '0', '--repeat', '1']}[tool]
    done = subprocess.run(
        [f'{BIN}/rocmforge-worker', tool, '-m', os.path.abspath(model), '--device', 'gpu', '--ctx-size', '128',
         '--parallel', '1', '--chunk-size', '40', '--gpu-timeout', TIMEOUT, *args, *more],
        env={**os.environ, **machine.env, 'HIP_DOUBLE': rules}, capture_output=True, text=True)
    return done.returncode, done.stderr


def launches(machine):
    """{kernel: how often it ran} of the healthy run."""
    with open(machine.log) as f:
        words = [line.split() for line in f]
    os.unlink(machine.log)
    return {w[1]: int(w[2]) for w in words if w[0] == 'kernel'}


def fails(run, machines, kernel, fault, at):
    machine = machines.get()
    try:
        code, said = compute(run, machine, f'{fault}@{kernel}:{at}')
    finally:
        machines.put(machine)
    what = f'{os.path.basename(run[0])}, {fault} at launch {at} of {kernel}'
    if fault == 'nan':
        check(code != FAULT_CODE and 'NaN' in said, f'{what}: {code}, {said[-400:]}')
        return
    check(code == (ABORTED if fault == 'abort' else FAULT_CODE), f'{what}: exit code {code}, {said[-400:]}')
    check(said.strip().endswith('; kernel: ' + kernel), f'{what}: {said[-400:]}')
    check(fault != 'hang' or 'no answer for' in said, f'{what}: {said[-400:]}')


def main():
    machine = Machine(BIN)
    machines = queue.SimpleQueue()
    n_threads = os.cpu_count() or 1
    for _ in range(n_threads):
        machines.put(Machine(BIN))
    ways = collections.Counter()
    seen = set()
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(n_threads) as threads:
        jobs = []
        for run in models(folder):
            code, said = compute(run, machine)
            check(code == 0, f'{run}: {said[-400:]}')
            for kernel, n in launches(machine).items():
                if kernel in seen:
                    continue
                seen.add(kernel)
                faults = [(f, at) for at in sorted({1, n}) for f in ('sticky', 'abort', 'failure', 'hang')]
                faults += [('nan', 1)] if kernel not in NO_FLOATS else []
                if not ALL:
                    faults = [(QUICK[len(seen) // 3 % 3], n)] if len(seen) % 3 == 0 else []
                for fault, at in faults:
                    jobs.append(threads.submit(fails, run, machines, kernel, fault, at))
                    ways[fault] += 1
        try:
            for job in concurrent.futures.as_completed(jobs):
                job.result()
        finally:  # of the others nobody wants to know
            threads.shutdown(wait=False, cancel_futures=True)
    missed = [k for k in table() if k not in seen and k not in OF_PREFLIGHT]
    print(f'{len(seen)} kernels: {dict(ways)}; not run: {missed}')
    check(len(seen) > 10, 'the demo model runs more kernels than that')
    check(not ALL or not missed or not os.path.exists(DATA), f'no model runs {missed}')


main()
