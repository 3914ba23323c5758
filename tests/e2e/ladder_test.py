"""The degrade ladder on the GPU (an emulated one): workers that die on it are followed by ones that use
less of it and at last none, the answer that was under way ends on the CPU and says so, and it is all
remembered by the next server."""
import json
import os
import re
import signal
import sys
import time

from machine import Machine
from server import Server, chat, check, check_equal, stream_text

BIN = sys.argv[1]
SMALL = ['--ctx-size', '256', '--parallel', '2', '--chunk-size', '96', '--device', 'gpu']
STORY = chat('Tell me a story about a brave mouse.', max_tokens=24, logit_bias={'2047': -100})


def rung(server):
    metrics = server.get('/metrics')[1].decode()
    return int(re.search(r'^rocmforge_degrade_rung (\d+)', metrics, re.M).group(1))


def die(server):
    """The worker dies of itself, and the next one is ready."""
    worker = server.child('rocmforge-worker')
    os.kill(worker, signal.SIGSEGV)
    wait_for_another(server, worker)


def wait_for_another(server, worker):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if server.child('rocmforge-worker') not in (None, worker) and server.get('/ready')[0] == 200:
            return
        time.sleep(0.02)
    raise AssertionError('no new worker')


machine = Machine(BIN)
with Server(BIN, '--device', 'cpu', *SMALL[:6]) as server:
    story = stream_text(server.stream('/v1/chat/completions', STORY))

with Server(BIN, *SMALL, env=machine.env, before=('--stall-ms', '60000')) as server:
    check_equal(rung(server), 0, 'full speed at first')
    for expected in (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4):
        die(server)
        check_equal(rung(server), expected, 'rung')
    where = re.findall(r'on gpu gfx1100(?: \((\d+)/(\d+) layers\) \+ cpu)?', server.log_text())
    check_equal(where[-2], ('', ''), 'all layers were on the GPU')
    n, n_layers = map(int, where[-1])
    check(0 < n <= (n_layers + 1) // 2, f'{n} of {n_layers} layers are on the GPU now')
    events = server.stream('/v1/chat/completions', STORY)
    check_equal(stream_text(events), story, 'the story by both')
    for _ in range(2):
        die(server)
        check_equal(rung(server), 4, 'rung')
    worker = server.child('rocmforge-worker')
    events = server.stream('/v1/chat/completions', STORY)
    seen = [next(events) for _ in range(4)]
    os.kill(worker, signal.SIGSEGV)
    seen += list(events)
    check_equal(stream_text(seen), story, 'the story that began on the GPU and ended on the CPU')
    last = [e for e in seen if e != '[DONE]'][-1]
    check('cpu' in last.get('resumed_on', ''), f'it says so: {last}')
    check_equal(rung(server), 5, 'rung')
    report = json.loads(server.get('/crashes')[1])['crashes'][0]
    check_equal(report['whose_fault'], 'its own fault', 'reported')
    for name in ('safe', 'chunk', 'unfused', 'fewer', 'cpu'):
        check(f"the next worker runs on rung '{name}'" in server.log_text(), f'the log says {name}')
    server.settle()
    memory = open(os.path.join(server.state, 'ladder')).read()
    check(memory.split()[1] == 'cpu', f'remembered: {memory}')
    kept = {**machine.env, 'XDG_STATE_HOME': server.folder.name}
    with Server(BIN, *SMALL, env=kept) as again:
        check("it begins on rung 'cpu'" in again.log_text(), 'the next server knows')
        check('on cpu' in again.log_text(), 'and computes on the CPU')
    with Server(BIN, *SMALL, '--cpu-fallback', 'never', env=kept) as never:
        check("it begins on rung 'unfused'" in never.log_text(), 'but not where that is not wanted')
        check('on gpu' in never.log_text(), 'it computes on the GPU')
print('ok')
