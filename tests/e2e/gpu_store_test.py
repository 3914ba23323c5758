"""The KV cache of a GPU outlives its worker: blocks are copied to the host's memory behind the steps, and the next
worker brings those that it finds whole back to the card. What was not copied yet is computed again: one block at most.
What was damaged is noticed, and computed again."""
import json
import os
import signal
import sys

from machine import Machine, SMALL
from server import Server, check, check_equal, kill
from store_test import BLOCK, kill_worker, metric

BIN = sys.argv[1]
TEXTS = [f'Once upon a time there was a {who} who lived at the edge of the forest. ' * 3
         for who in ('mouse', 'robot')]


def body(text):
    return {'prompt': text, 'temperature': 0, 'max_tokens': 14, 'ignore_eos': True,
            'logit_bias': {'2047': -100}}


def text_of(events):
    return ''.join(e['choices'][0]['text'] for e in events if e != '[DONE]' and e.get('choices'))


def prefilled(server):
    """Tokens that the present worker computed before answers went on."""
    spans = [p for r in json.loads(server.get('/traces')[1])['resourceSpans']
             for q in r['scopeSpans'] for p in q['spans']]
    return sum(int(a['value']['intValue']) for p in spans if p['name'] == 'prefill'
               for a in p['attributes'] if a['key'] == 'tokens')


def ends_in_the_middle(server, text, end):
    events = server.stream('/v1/completions', body(text))
    seen = [next(events) for _ in range(2)]
    end()
    seen += list(events)
    rows = prefilled(server)
    check(rows <= BLOCK + 1, f'{rows} tokens were computed again')
    return text_of(seen)


def ask(server, text):
    answer = server.post('/v1/completions', body(text))[1]
    return (answer['choices'][0]['text'], answer['usage']['prompt_tokens'],
            answer['usage']['prompt_tokens_details']['cached_tokens'])


def damage(server):
    """Some bit of every few that the supervisor holds, but not the header."""
    folder = f'/proc/{server.process.pid}/fd'
    path = next(p for p in (os.path.join(folder, f) for f in os.listdir(folder))
                if 'rocmforge-kv' in os.readlink(p))
    with open(path, 'r+b') as f:
        data = bytearray(f.read())
        for i in range(4096, len(data), 64):
            data[i] ^= 1
        f.seek(0)
        f.write(data)


machine = Machine(BIN)
with Server(BIN, '--device', 'gpu', *SMALL, env=machine.env) as server:
    texts = [ends_in_the_middle(server, TEXTS[0], lambda: kill_worker(server)),
             ends_in_the_middle(server, TEXTS[1], lambda: machine.fault('sticky@gemv_one_q8_0:15'))]
    check('last words: GPU' in server.log_text(), 'the GPU has faulted')
    again, n_prompt, cached = ask(server, TEXTS[0])
    check_equal(again, texts[0], 'a text that a worker before the last knew')
    check(cached >= (n_prompt - 1) // BLOCK * BLOCK, f'{cached} of {n_prompt} tokens found')
    check_equal(metric(server, 'rocmforge_kv_blocks_broken'), 0, 'broken blocks')
    kill(server.child('worker'), signal.SIGSTOP)  # what it has is what the next one finds
    damage(server)
    kill_worker(server)
    for i in range(2):
        again, _, cached = ask(server, TEXTS[i])
        check_equal(again, texts[i], 'computed from the beginning, it is the same text')
        check(cached < BLOCK, f'{cached} tokens were believed')
    check(metric(server, 'rocmforge_kv_blocks_broken') > 0, 'the damage is counted')
print('ok')
