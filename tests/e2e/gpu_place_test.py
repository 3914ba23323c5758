"""A model that does not fit the card's memory, on an emulated card with less of it: computed by the GPU and the CPU
together, told in /props, /traces and the plan, with the CPU's text; a worker that dies goes on with the same bytes;
nothing is allocated on the device once the server is ready, and memory that cannot be had costs one request."""
import glob
import json
import os
import signal
import subprocess
import sys
import threading

import logits
from machine import QUESTIONS, STORY, Machine, ask
from machine import SMALL as SMALL_SERVER
from server import DEMO, Server, chat, check, check_equal, stream_text

BIN = sys.argv[1]
ARCHS = os.path.join(os.path.dirname(os.getcwd()), 'shared', 'data', 'archs')
SMALL = [*SMALL_SERVER, '--vram-reserve', '0']
MARGIN = 256  # MiB that are left free besides (safety/vram.h)


def small_machine(mib):
    machine = Machine(BIN)
    machine.set_vram(mib + MARGIN << 20, 0)
    machine.env['HIP_DOUBLE_VRAM'] = str(mib + MARGIN)
    machine.env['HIP_DOUBLE_USED'] = '0'
    return machine


def props(server):
    return json.loads(server.get('/props')[1])


def check_distance(name, model, machine, most, *more):
    """The logits are the CPU's but for rounding."""
    expected, _ = logits.compute(BIN, model, range(3, 41), 'cpu', more=('--gen', '2'))
    got, said = logits.compute(BIN, model, range(3, 41), 'gpu', machine.env, ('--gen', '2', *more))
    check(got is not None, f'{name}: {said[-400:]}')
    error = logits.nmse(got, expected) ** 0.5
    print(f'{name}: distance from the CPU {error:.1e}')
    check(error < most, f'{name}: {error}')


def plan(*args):
    done = subprocess.run([os.path.join(BIN, 'rocmforge'), 'inspect', DEMO, '--plan', *args], capture_output=True,
                          text=True)
    check_equal(done.returncode, 0, done.stderr)
    return done.stdout


with Server(BIN, '--device', 'cpu', *SMALL) as server:
    expected = [ask(server, q) for q in QUESTIONS]
    story = stream_text(server.stream('/v1/chat/completions', STORY))
    check_equal(props(server)['placement'], None, 'nothing to place on the CPU')

# Six of its layers and the output take 8 MiB.
machine = small_machine(6)
with Server(BIN, '--device', 'gpu', *SMALL, env=machine.env) as server:
    placement = props(server)['placement']
    check(0 < placement['gpu_layers'] < 6, f'some layers are there: {placement}')
    check(placement['vram_bytes'] <= 6 << 20, 'within the ceiling')
    devices = {p['part']: p for p in placement['parts']}
    check_equal(devices['embedding']['device'], 'cpu', 'one row is read')
    on_cpu = [p for p in placement['parts'] if p['device'] == 'cpu' and p['part'].startswith('layer')]
    check(on_cpu and on_cpu[0]['why'] == 'no room in the VRAM', f'why: {placement}')
    where = props(server)['device']
    check(f"({placement['gpu_layers']}/6 layers) + cpu" in where, where)
    n_mallocs = machine.calls('malloc')
    check_equal([ask(server, q) for q in QUESTIONS], expected, 'greedy text of both')
    alone = stream_text(server.stream('/v1/chat/completions', STORY))
    check_equal(alone, story, 'the story')
    check(machine.calls('graph') > 10, 'the part on the GPU is replayed')
    check('is off from here on' not in server.log_text(), 'replays are those of the plain path')
    check(where in server.get('/traces')[1].decode(), 'traces name the devices')
    together = [None, None]

    def tell(i):
        together[i] = stream_text(server.stream('/v1/chat/completions', STORY))

    threads = [threading.Thread(target=tell, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check_equal(together, [alone, alone], 'together as alone')
    check_equal(machine.calls('malloc'), n_mallocs, 'no device memory but at load')
    events = server.stream('/v1/chat/completions', STORY)
    seen = [next(events) for _ in range(4)]
    os.kill(server.child('rocmforge-worker'), signal.SIGKILL)
    seen += list(events)
    check_equal(stream_text(seen), alone, 'killed in between')
    # How fast the CPU is, each worker measures: one that others kept waiting may place otherwise.
    now = props(server)['placement']
    is_same = [p['device'] for p in now['parts']] == [p['device'] for p in placement['parts']]
    check_equal('resumed_on' in [e for e in seen if e != '[DONE]'][-1], not is_same, 'other devices are told')
    if is_same:
        check_equal(now, placement, 'placed as before')

# Memory that is not there when a model is loaded costs the request that wanted it.
machine = Machine(BIN)
models = ['one=' + DEMO, 'two=' + DEMO]
with Server(BIN, '--device', 'gpu', *SMALL, '--max-models', '1', models=models, env=machine.env) as server:
    worker = server.child('rocmforge-worker')
    question = {**chat(QUESTIONS[0], max_tokens=12), 'model': 'two'}
    machine.fault('oom@Malloc')
    status, r = server.post('/v1/chat/completions', question)
    check(status == 409 and 'VRAM' in r['error']['message'], f'{status}: {r}')
    status, r = server.post('/v1/chat/completions', question)
    check_equal(status, 200, f'the next one is served: {r}')
    check_equal(server.child('rocmforge-worker'), worker, 'by the same worker')

# A model is loaded beside the steps of another, which is recorded and replayed meanwhile.
machine = Machine(BIN)
with Server(BIN, '--device', 'gpu', *SMALL, models=models, env=machine.env) as server:
    status, r = server.post('/v1/models/unload', {'model': 'two'})
    check_equal(status, 200, f'unload: {r}')
    events = server.stream('/v1/chat/completions', {**STORY, 'model': 'one'})
    seen = [next(events) for _ in range(2)]
    answers = []
    asking = threading.Thread(target=lambda: answers.append(server.post('/v1/chat/completions', question)))
    asking.start()
    seen += list(events)
    asking.join()
    check_equal(stream_text(seen), story, 'beside a load')
    status, r = answers[0]
    check_equal((status, r['choices'][0]['message']['content']), (200, expected[0]), 'loaded beside steps')
    check('graphs are off' not in server.log_text(), 'replays are those of the plain path')

# Where nothing fits, the CPU computes: also a model that is not loaded before it is asked for.
with Server(BIN, '--device', 'auto', *SMALL, '--max-models', '1', models=models, env=small_machine(1).env) as server:
    for name in ('one', 'two'):
        status, r = server.post('/v1/chat/completions', {**chat(QUESTIONS[0], max_tokens=12), 'model': name})
        check_equal(status, 200, f'model {name}: {r}')
        check_equal(r['choices'][0]['message']['content'], expected[0], name)

machine = Machine(BIN)
with Server(BIN, '--device', 'auto', '--gpu-layers', '0', *SMALL, env=machine.env) as server:
    check('on cpu' in server.log_text(), 'no layers there')
for layers in ('1', '4', '6'):
    check_distance(f'{layers} layers', DEMO, machine, 0.02, '--gpu-layers', layers)

# The same table where there is no such card.
table = plan('--vram', '262', '--vram-reserve', '0', '--ctx-size', '256')
check('on the CPU' in table or 'GPU' in table, table)
table = plan('--vram', '20480')
check('layers 0-5' in table and 'fits into the VRAM' in table, table)
check('all on the CPU: --gpu-layers 0' in plan('--vram', '20480', '--gpu-layers', '0'), 'none wanted')

for model in sorted(glob.glob(os.path.join(ARCHS, '*-moe-F16.gguf'))):
    name = os.path.basename(model)
    if name.split('-moe')[0] in ('llama', 'qwen3moe', 'gpt-oss'):
        check_distance(f'{name}, 4 MiB', model, small_machine(4), 0.02, '--vram-reserve', '0', '--chunk-size', '64')
        check_distance(f'{name}, 1 layer', model, machine, 0.02, '--gpu-layers', '1')
print('ok')
