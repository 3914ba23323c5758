"""The router on the GPU: a way that fails is off from then on, and nobody's answer shows it; safe mode takes none of the
fast ways, and says the same text. Which are off and why is told by /props, /metrics, traces and the log."""
import json
import os
import subprocess
import sys

from machine import SMALL, Machine
from server import DEMO, Server, check, check_equal
from store_test import metric

BIN = sys.argv[1]
WHO = ('mouse', 'robot', 'fox', 'king')  # a prompt that was answered before is not computed again


def body(who):
    return {'prompt': f'There was a {who} who lived at the edge of the forest, far from the sea.',
            'temperature': 0, 'max_tokens': 7,
            'ignore_eos': True, 'logit_bias': {'2047': -100}}


def ask(server, who=WHO[0]):
    status, answer = server.post('/v1/completions', body(who))
    return answer['choices'][0]['text'] if status == 200 else answer['error']['code']


def ways(server):
    return {w['name']: w for w in json.loads(server.get('/props')[1])['gpu_ways']}


def fallen(server):
    off = {name for name, w in ways(server).items() if 'step' in w}
    check_equal(metric(server, 'rocmforge_gpu_ways_off'), len(off), 'the number of ways that are off')
    check_equal(server.log_text().count('is off from here on'), len(off), 'lines in the log')
    return off


def taken(server):
    """What the steps' spans say, prompts and some of the others."""
    spans = [p for r in json.loads(server.get('/traces')[1])['resourceSpans']
             for q in r['scopeSpans'] for p in q['spans']]
    return {a['value']['stringValue'] for p in spans for a in p['attributes'] if a['key'] == 'way'}


def logits(*args):
    """Those of a prompt of two chunks and a few tokens, and which kernels made them."""
    machine = Machine(BIN)
    path = os.path.join(machine.root, 'logits')
    subprocess.run([f'{BIN}/rocmforge-worker', 'logits', '-m', DEMO, '--device', 'gpu', *SMALL, '--tokens',
                    ','.join(str(i) for i in range(3, 73)), '--gen', '5', '-o', path, *args],
                   env={**os.environ, **machine.env}, check=True, capture_output=True)
    with open(machine.log) as log, open(path, 'rb') as f:
        return f.read(), {line.split()[1] for line in log if line.startswith('kernel ')}


def serve(machine, *args, **env):
    return Server(BIN, '--device', 'gpu', *SMALL, *args, env={**machine.env, **env})


with Server(BIN, '--device', 'cpu', *SMALL) as server:
    texts = {who: ask(server, who) for who in WHO}
    check_equal(ways(server), {}, 'the CPU has none')
    check_equal(taken(server), {'cpu'}, 'how steps were computed')

machine = Machine(BIN)
with serve(machine) as server:
    check_equal(ask(server), texts[WHO[0]], 'the text')
    names = set(ways(server))
    check(all(w['is_on'] for w in ways(server).values()), 'all ways are on')
    check_equal(fallen(server), set(), 'none failed')
    check(machine.calls('graph') > 3, 'steps are replayed')
    check(any('batch, tiles' in w for w in taken(server)), f'the prompt was computed fast: {taken(server)}')

    machine.fault('nan@embed:1*0')  # in whatever way
    check_equal(ask(server, WHO[1]), 'numeric_fault', 'NaN by itself')
    os.remove(machine.faults)
    check_equal(fallen(server), set(), 'it was no fault of the ways')

    machine.fault('nan@gemm_q8_0:3')
    check_equal(ask(server, WHO[1]), texts[WHO[1]], 'a prompt that was computed again')
    check_equal(fallen(server), {'batch', 'tiles', 'inner'}, 'those that the prompt took')
    check('NaN' in ways(server)['batch']['why'], 'why')
    n_graphs = machine.calls('graph')
    check_equal(ask(server, WHO[2]), texts[WHO[2]], 'without them')
    check(machine.calls('graph') > n_graphs, 'steps are replayed as before')

    events = server.stream('/v1/completions', body(WHO[3]))
    seen = [next(events)]
    machine.fault('nan@gemv_one_q8_0:40')
    seen += list(events)
    check_equal(''.join(e['choices'][0]['text'] for e in seen if e != '[DONE]' and e.get('choices')),
                texts[WHO[3]], 'a step of an answer that was computed again')
    check_equal(fallen(server), {'batch', 'tiles', 'inner', 'replay'}, 'the replay as well')
    n_graphs = machine.calls('graph')
    check_equal(ask(server), texts[WHO[0]], 'without replays')
    check_equal(machine.calls('graph'), n_graphs, 'nothing is replayed')

with serve(machine, HIP_DOUBLE='error=801@GraphInstantiate*0') as server:
    check_equal(ask(server), texts[WHO[0]], 'without graphs')
    check_equal(fallen(server), {'replay'}, 'the runtime refuses graphs')

with serve(machine) as server:
    machine.fault('wrong@top_fold:4')  # in a step that is compared
    check_equal(ask(server), texts[WHO[0]], 'with a wrong largest logit')
    check_equal(fallen(server), {'top'}, 'picking logits out')

with serve(machine) as server:
    for who in WHO[:3]:
        machine.fault('sticky@gemv_one_q8_0:1')
        check_equal(ask(server, who), texts[who], 'an answer behind a fault')
    check_equal(metric(server, 'rocmforge_degrade_rung'), 1, 'the rung after three faults')
    check_equal({w.get('why') for w in ways(server).values()}, {'safe mode'}, 'it is safe mode')

plain = Machine(BIN)
with serve(plain, '--safe-mode', 'on') as server:
    check_equal(ask(server), texts[WHO[0]], 'the text in safe mode')
    check_equal({n for n, w in ways(server).items() if not w['is_on'] and w['why'] == 'safe mode'}, names,
                'ways that are off')
    check_equal(fallen(server), set(), 'none failed')
    check_equal(taken(server), {'plain'}, 'how steps were computed')
    check_equal(plain.calls('graph'), 0, 'nothing is replayed')

fast, ran = logits()
check({'gemm_q8_0', 'attention_tile'} <= ran, f'fast kernels ran: {ran}')
safe, ran = logits('--safe-mode', 'on')
check(not any(k.startswith(('gemm', 'attention_tile', 'top_')) for k in ran), f'no fast kernel ran: {ran}')
check({'gemv_q8_0', 'norm', 'kv_write'} <= ran, f'plain ones did: {ran}')
check(safe == fast and len(safe) > 8192, 'the same bits')
print('ok')
