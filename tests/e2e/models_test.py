"""Several models: loaded when asked for, unloaded by order, for want of room and after idling; what
runs goes on meanwhile."""
import json
import signal
import sys
import tempfile
import threading
import time

from server import DEMO, Server, chat, check, check_equal

MODELS = ['a=' + DEMO, 'b=' + DEMO, 'c=' + DEMO]
LOAD, UNLOAD = '/v1/models/load', '/v1/models/unload'


def state(s):
    status, body = s.get('/v1/models')
    check_equal(status, 200, '/v1/models')
    return ''.join(m['id'] if m['status']['value'] == 'loaded' else '-'
                   for m in json.loads(body)['data'])


def answer(s, model):
    status, r = s.post('/v1/chat/completions', chat('What is 17 + 25?', model=model))
    check_equal(status, 200, r)
    check_equal(r['model'], model, 'model')
    return r['choices'][0]['message']['content']


def wait_for(s, expected):
    end = time.monotonic() + 120
    while state(s) != expected and time.monotonic() < end:
        time.sleep(0.02)
    check_equal(state(s), expected, 'models')


def orders(s):
    check_equal(state(s), 'ab-', 'two of three at the start')
    first = answer(s, 'a')
    check_equal(s.post(UNLOAD, {'model': 'a'}), (200, {'model': 'a', 'status': {'value': 'unloaded'}}),
                'unload')
    check_equal(state(s), '-b-', 'unloaded')
    check_equal(s.post(UNLOAD, {'model': 'a'})[0], 200, 'again')
    events = list(s.stream(LOAD, {'model': 'a'}))
    check_equal(events[-1], {'model': 'a', 'status': {'value': 'loaded'}}, 'load')
    for e in events[:-1]:
        check(e['status']['value'] == 'loading' and e['loaded_bytes'] <= e['total_bytes'], e)
    check_equal(state(s), 'ab-', 'loaded')
    check_equal(answer(s, 'a'), first, 'the same answer as before')
    check_equal(s.post(LOAD, {'model': 'nobody'})[0], 404, 'unknown')
    check_equal(s.post(LOAD, {})[0], 400, 'no model named')


def on_demand(s):
    first = answer(s, 'b')
    answer(s, 'a')
    check_equal(answer(s, 'c'), first, 'a model that was not loaded')
    check_equal(state(s), 'a-c', 'the one unused longest went')
    results = []
    threads = [threading.Thread(target=lambda: results.append(answer(s, 'b'))) for _ in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check_equal(results, [first] * 5, 'five at once for one that is being loaded')
    check_equal(state(s), '-bc', 'and so on')


def in_use(s):
    started = [threading.Event(), threading.Event()]

    def run(i, model):
        for _ in s.stream('/v1/completions', {'model': model, 'prompt': 'x', 'max_tokens': 900,
                                              'ignore_eos': True, 'n': 8, 'temperature': 1}):
            started[i].set()

    threads = [threading.Thread(target=run, args=(i, m)) for i, m in enumerate('bc')]
    for t in threads:
        t.start()
    for e in started:
        e.wait(120)
    busy = s.post(UNLOAD, {'model': 'b'})
    full = s.post(LOAD, {'model': 'a'})
    if all(t.is_alive() for t in threads):  # on a slow machine they may have ended by now
        check_equal((busy[0], busy[1]['error']['code']), (409, 'model_in_use'), 'unload in use')
        check_equal((full[0], full[1]['error']['code']), (409, 'no_room_for_model'), 'no room')
    for t in threads:
        t.join()


with Server(sys.argv[1], '--max-models', '2', models=MODELS) as server:
    for test in (orders, on_demand, in_use):
        print(test.__name__)
        test(server)
with tempfile.NamedTemporaryFile('w') as conf, \
        Server(sys.argv[1], '--config', conf.name, models=MODELS[:1]) as server:
    print('a reload reaches the worker')
    conf.write('model_idle = 0.3\nthreads = 1\n')
    conf.flush()
    server.process.send_signal(signal.SIGHUP)
    wait_for(server, '-')
    check("a change of 'threads' needs a restart" in server.log_text(), server.log_text())
with Server(sys.argv[1], '--model-idle', '0.3', models=MODELS[:1]) as server:
    print('idle')
    wait_for(server, '-')
    answer(server, 'a')
    wait_for(server, '-')
print('ok')
