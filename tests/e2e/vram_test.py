"""The desktop needs the card's memory: sysfs tells that others use more and more of it, and the worker gives back. Streams
go on, byte for byte; device memory is really freed; when there is room again it is taken again."""
import fcntl
import json
import os
import re
import sys
import time

from machine import GIB, Machine
from server import Server, check, check_equal, stream_text

BIN = sys.argv[1]
TOTAL, MARGIN = 20 * GIB, 256 << 20
ARGS = ['--ctx-size', '512', '--parallel', '4', '--chunk-size', '64', '--vram-reserve', '0']
STORY = {'prompt': 'One day', 'max_tokens': 12, 'temperature': 0, 'ignore_eos': True}


class Desktop:
    """Leaves so many bytes of the card to us. What we hold beside that the double of the runtime tells as it changes."""

    def __init__(self, machine):
        self.machine, self.server = machine, None
        self.env = {**machine.env, 'HIP_DOUBLE_CARD': machine.root}
        self.leave(TOTAL)

    def leave(self, room):
        root, others = self.machine.root, max(TOTAL - MARGIN - room, 0)
        with open(os.path.join(root, 'lock'), 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.machine.put('others', f'{others}\n')
            self.machine.set_vram(TOTAL, min(TOTAL, others + self.held()))

    def held(self):
        """By the worker there is: of one that has ended, nothing."""
        if not self.server:
            return 0
        with open(os.path.join(self.machine.root, 'held')) as f:
            pid, held = map(int, f.read().split())
        return held if pid == self.server.child('rocmforge-worker') else 0


def vram(server):
    return json.loads(server.get('/v1/vram')[1])['data'][0]


def metric(server, name):
    return int(re.search(rf'^rocmforge_{name} (\d+)$', server.get('/metrics')[1].decode(), re.M).group(1))


def wait(what, test, seconds=120):
    end = time.monotonic() + seconds
    while not test():
        check(time.monotonic() < end, f'within {seconds} s: {what}')
        time.sleep(0.02)


def story(server):
    return stream_text(server.stream('/v1/completions', STORY))


desktop = Desktop(Machine(BIN))
with Server(BIN, '--device', 'gpu', *ARGS, env=desktop.env) as server:
    desktop.server = server
    undisturbed = story(server)
    full = desktop.held()

desktop = Desktop(Machine(BIN))
with Server(BIN, '--device', 'gpu', *ARGS, env=desktop.env,
            before=['--stall-ms', '60000', '--calm-ms', '1500']) as server:
    desktop.server = server
    check_equal(desktop.held(), full, 'device memory at the start')
    blocks = metric(server, 'kv_blocks')
    story(server)  # leaves something in the cache
    wait('the card is watched', lambda: server.get('/v1/vram')[1].find(b'held_bytes') > 0)
    wait('something is cached', lambda: metric(server, 'kv_blocks_cached') > 0)

    events = server.stream('/v1/completions', STORY)
    seen = [next(events) for _ in range(3)]
    weights = full - int(re.search(r'VRAM: ([\d.]+) MB for KV cache', server.log_text()).group(1).replace('.', '')) * 10**5
    room = weights + (full - weights) // 3  # two thirds of the KV cache must go
    desktop.leave(room)
    wait('it gives back', lambda: metric(server, 'vram_given_back_bytes') > 0)
    check_equal(stream_text(seen + list(events)), undisturbed, 'a story while memory is given back')
    wait('the pool is smaller', lambda: metric(server, 'kv_blocks') < blocks // 2)
    wait('device memory is freed', lambda: desktop.held() <= room)
    v = vram(server)
    check_equal((v['given_back_bytes'] > 0, v['left_over_bytes']), (True, 0), f'/v1/vram: {v}')
    check('the worker gave back' in server.log_text(), 'the log says so')
    check_equal(story(server), undisturbed, 'a story in the smaller cache')

    at = time.monotonic()
    desktop.leave(TOTAL)
    events = server.stream('/v1/completions', STORY)
    seen = [next(events) for _ in range(3)]
    wait('it grows again', lambda: metric(server, 'kv_blocks') == blocks)
    check_equal(stream_text(seen + list(events)), undisturbed, 'a story while it grows')
    check_equal(desktop.held(), full, 'device memory as at the start')
    check_equal(metric(server, 'worker_starts_total'), 1, 'by the same worker')
    check('is off from here on' not in server.log_text(), 'steps are replayed as before')
    # All of it is wanted: another worker computes on the CPU, and the answer goes on. It is so long that the card is looked
    # at before its end; the CPU is done with the rest at once.
    events = server.stream('/v1/completions', {**STORY, 'max_tokens': 400})
    seen = [next(events) for _ in range(3)]
    desktop.leave(0)
    wait('another worker', lambda: 'another worker takes less of the card' in server.log_text())
    seen += list(events)
    # Other numbers from there on: the same length, and what was said before.
    check_equal(stream_text(seen)[1:], undisturbed[1:], 'a story that ends on the CPU')
    check_equal(stream_text(seen[:3])[0], undisturbed[0][:len(stream_text(seen[:3])[0])], 'it goes on')
    check('cpu' in [e for e in seen if e != '[DONE]'][-1].get('resumed_on', ''), 'it says so')
    desktop.leave(TOTAL)
    wait('the GPU again', lambda: server.log_text().count('on gpu gfx1100; ') == 2)
    wait('all of it', lambda: server.get('/ready')[0] == 200 and metric(server, 'kv_blocks') == blocks)
    check_equal(story(server), undisturbed, 'a story on the GPU again')
    check_equal(metric(server, 'worker_deaths_own_fault'), 0, 'deaths')
    print(f'ok: {full} bytes, grown again after {time.monotonic() - at:.1f} s')
