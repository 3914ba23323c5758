"""A worker whose GPU computes wrong numbers is not believed: it ends before it serves, its report says why, and the next one
is tried. Wrong is what differs between one chunk and several steps, and what differs from an earlier worker.

    gpu_canary_test.py BIN [all]     with "all": each kernel that computes the demo model's first tokens is wrong once
"""
import json
import os
import signal
import subprocess
import sys
import time

from machine import SMALL, STORY, Machine
from server import DEMO, Server, check, check_equal, stream_text

BIN = sys.argv[1]


def until(what, holds):
    end = time.monotonic() + 300
    while not holds():
        check(time.monotonic() < end, what)
        time.sleep(0.05)


def last_words(server):
    """Of all crashes, the newest first."""
    return [c.get('last_words', '') for c in json.loads(server.get('/crashes')[1])['crashes']]


def kill(server):
    """Ready again with another worker, and the report is written."""
    worker, n = server.child('rocmforge-worker'), len(last_words(server))
    os.kill(worker, signal.SIGKILL)
    until('a report', lambda: len(last_words(server)) > n)
    until('no new worker', lambda: server.child('rocmforge-worker') not in (None, worker) and
          server.get('/ready')[0] == 200)


def kernels():
    """Of steps like those of the canary: a chunk, and a shorter one with single tokens behind it."""
    machine = Machine(BIN)
    for n, more in ((17, []), (13, ['--gen', '4'])):
        subprocess.run([f'{BIN}/rocmforge-worker', 'logits', '-m', os.path.abspath(DEMO), '--device', 'gpu', *SMALL, '--tokens',
                        ','.join(str(i) for i in range(3, 3 + n)), *more, '-o', '/dev/null'],
                       env={**os.environ, **machine.env}, check=True, capture_output=True)
    with open(machine.log) as f:
        words = [line.split() for line in f]
    return sorted({w[1] for w in words if w[0] == 'kernel'})


def every_kernel():
    names = kernels()
    check(len(names) > 8, f'{names}')
    for name in names:
        machine = Machine(BIN)
        machine.fault(f'wrong@{name}')
        with Server(BIN, '--device', 'gpu', *SMALL, env=machine.env) as server:
            until(name, lambda: 'the canary' in ''.join(last_words(server)))
    print(f'{len(names)} kernels: {names}')


machine = Machine(BIN)
machine.fault('wrong@gemm_q8_0:2')
with Server(BIN, '--device', 'gpu', *SMALL, env=machine.env) as server:
    until('the canary as one chunk', lambda: 'the canary as one chunk has other bits' in ''.join(last_words(server)))
    story = stream_text(server.stream('/v1/chat/completions', STORY))
    kill(server)
    check_equal(last_words(server)[0], '', 'the same bits again are believed')

    machine.fault('nan@gemv_one_q8_0:2')
    kill(server)
    until('an earlier worker', lambda: 'the canary has other bits than in an earlier' in ''.join(last_words(server)))
    check_equal(stream_text(server.stream('/v1/chat/completions', STORY)), story, 'after all that')
if 'all' in sys.argv[2:]:
    every_kernel()
print('ok')
