"""What outlives the worker: after SIGKILL its successor maps the packed weights and finds the KV cache
of every whole block; an idle model that was unloaded does, too; a model file that changes under the
server is said to have changed.

    store_test.py BIN
"""
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from server import DEMO, Server, check, check_equal, kill  # noqa: E402

BLOCK = 16
TEXT = 'One day a brave mouse went to the sea. ' * 12


def answer(server, **more):
    status, body = server.post('/v1/completions', {'prompt': TEXT, 'temperature': 0,
                                                   'max_tokens': 24, **more})
    check_equal(status, 200, 'status')
    usage = body['usage']
    return body['choices'][0]['text'], usage['prompt_tokens'], \
        usage['prompt_tokens_details']['cached_tokens']


def ready_epoch(server):
    """0: not ready"""
    status, body = server.get('/ready')
    return json.loads(body)['worker']['epoch'] if status == 200 else 0


def kill_worker(server):
    """Comes back when the next one serves: the gateway may not have heard of the death yet."""
    epoch = ready_epoch(server)
    kill(server.child('worker'))
    while ready_epoch(server) <= epoch:
        time.sleep(0.005)


def metric(server, name):
    text = server.get('/metrics')[1].decode()
    found = re.search(rf'^{name} (\S+)$', text, re.M)
    check(found, f'no metric {name}')
    return float(found.group(1))


def the_next_worker_finds_it(bin_dir):
    with Server(bin_dir) as s:
        first, n_prompt, cached = answer(s)
        check_equal(cached, 0, 'cached tokens at first')
        kill_worker(s)
        again, _, cached = answer(s)
        check_equal(again, first, 'the answer after a kill')
        check(cached >= (n_prompt - 1) // BLOCK * BLOCK, f'{cached} of {n_prompt} tokens found')
        check(metric(s, 'rocmforge_kv_blocks_restored') >= n_prompt // BLOCK, 'restored blocks')
        check_equal(metric(s, 'rocmforge_kv_blocks_broken'), 0, 'broken blocks')
        check(metric(s, 'rocmforge_store_weights_bytes') > 1e6, 'bytes of stores')
        check('packed before' in s.log_text(), 'the weights were packed again')


def a_stream_computes_one_block_again(bin_dir):
    body = {'prompt': TEXT, 'temperature': 0, 'max_tokens': 300, 'ignore_eos': True,
            'logit_bias': {'2047': -100}}
    with Server(bin_dir) as s:
        undisturbed = s.post('/v1/completions', body)[1]['choices'][0]['text']
    with Server(bin_dir) as s:  # another: what the first one computed is found by nobody
        check('loaded in' in s.log_text(), 'log')
        texts, n_events = [], [0]

        def read():
            for e in s.stream('/v1/completions', body):
                if e != '[DONE]' and e.get('choices'):
                    texts.append(e['choices'][0]['text'])
                n_events[0] += 1

        thread = threading.Thread(target=read)
        thread.start()
        while n_events[0] < 60:
            time.sleep(0.001)
        kill_worker(s)
        thread.join(180)
        check_equal(''.join(texts), undisturbed, 'the stream')
        # The spans of the second worker: what it computed before it went on.
        spans = [p for r in json.loads(s.get('/traces')[1])['resourceSpans']
                 for q in r['scopeSpans'] for p in q['spans']]
        rows = sum(int(a['value']['intValue']) for p in spans if p['name'] == 'prefill'
                   for a in p['attributes'] if a['key'] == 'tokens')
        check(rows <= BLOCK, f'{rows} tokens were computed again')


def scribble(server, rng, n):
    """Writes into the KV cache that the supervisor holds, as a worker that ran wild would."""
    folder = f'/proc/{server.process.pid}/fd'
    path = next(p for p in (os.path.join(folder, f) for f in os.listdir(folder))
                if 'rocmforge-kv' in os.readlink(p))
    with open(path, 'r+b') as f:
        size = os.fstat(f.fileno()).st_size
        for _ in range(n):
            f.seek(rng.randrange(size))
            f.write(rng.randbytes(8))


def a_scribbled_cache_is_not_believed(bin_dir):
    rng = random.Random(3)
    # Of a size that does not depend on how much memory is free: a bigger one is hit less often.
    with Server(bin_dir, '--kv-memory', '16') as s:
        first, _, _ = answer(s)
        n_broken = 0
        for n in (2000, 20000, 200000):
            kill(s.child('worker'), signal.SIGSTOP)  # what it has is what the next one finds
            scribble(s, rng, n)
            kill_worker(s)
            check_equal(answer(s)[0], first, 'the answer')
            n_broken += metric(s, 'rocmforge_kv_blocks_broken')
            check('not whole' in s.log_text() or n_broken > 0, f'{n} scribbles went unnoticed')


def an_idle_model_keeps_its_cache(bin_dir):
    with Server(bin_dir, '--model-idle', '0.3') as s:
        first, n_prompt, _ = answer(s)
        end = time.monotonic() + 120
        while 'unloaded' not in s.log_text():
            check(time.monotonic() < end, 'it was not unloaded')
            time.sleep(0.05)
        again, _, cached = answer(s)
        check_equal(again, first, 'the answer after it was unloaded')
        check(cached >= (n_prompt - 1) // BLOCK * BLOCK, f'{cached} of {n_prompt} tokens found')


def ordered_unload_gives_all_back(bin_dir):
    with Server(bin_dir) as s:
        answer(s)
        check_equal(s.post('/v1/models/unload', {'model': 'forge-tiny'})[0], 200, 'unload')
        _, _, cached = answer(s)
        check_equal(cached, 0, 'cached tokens after an unload')


def wait_for_model(server):
    end = time.monotonic() + 120
    while server.post('/v1/completions', {'prompt': TEXT, 'max_tokens': 4})[0] != 200:
        check(time.monotonic() < end, 'it does not come back with the whole file')
        time.sleep(0.2)


def a_changed_file_is_named(bin_dir):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'm.gguf')
        shutil.copy(DEMO, path)
        with Server(bin_dir, '--resume-timeout', '3', models=['forge-tiny=' + path]) as s:
            first, _, _ = answer(s)
            os.utime(path, (1, 1))
            again, _, cached = answer(s)
            check_equal((again, cached), (first, 0), 'with the file that is there now')
            check('the model file changed' in s.log_text(), 'the log does not say so')
            # Cut short while an answer runs: what is mapped of it is gone. On a busy machine the
            # answer may be complete before we get to it; then once more.
            for _ in range(20):
                events = s.stream('/v1/completions', {'prompt': TEXT, 'max_tokens': 1500,
                                                      'logit_bias': {'2047': -100}})
                got = [next(events) for _ in range(5)]
                os.truncate(path, 4096)
                got += list(events)
                if got[-1] != '[DONE]':
                    break
                shutil.copy(DEMO, path)
                wait_for_model(s)
            check(got[-1] != '[DONE]' and got[-1]['error']['code'] == 'model_changed',
                  f'the end of the stream: {got[-1]}')
            check('cannot be read any more' in s.log_text(), 'no last words')
            status, body = s.post('/v1/completions', {'prompt': TEXT, 'max_tokens': 4})
            check_equal((status, body['error']['code']), (503, 'model_changed'), 'with half a file')
            shutil.copy(DEMO, path)
            wait_for_model(s)


def main():
    bin_dir = sys.argv[1]
    the_next_worker_finds_it(bin_dir)
    a_stream_computes_one_block_again(bin_dir)
    a_scribbled_cache_is_not_believed(bin_dir)
    an_idle_model_keeps_its_cache(bin_dir)
    ordered_unload_gives_all_back(bin_dir)
    a_changed_file_is_named(bin_dir)
    print('ok')


if __name__ == '__main__':
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    main()
