"""What the server tells of itself: slots, props, traces, and the metrics of the prefix cache."""
import json
import sys
import threading
import time

from server import Server, chat, check, check_equal


def get(s, path):
    status, body = s.get(path)
    check_equal(status, 200, path)
    return json.loads(body)


def slots(s):
    idle = get(s, '/slots')
    check_equal([x['id'] for x in idle], list(range(16)), 'ids of slots')
    check(not any(x['is_processing'] for x in idle), 'idle slots')
    seen, n_readers = threading.Event(), 0

    def read():
        for _ in s.stream('/v1/completions', {'prompt': 'a', 'max_tokens': 900, 'ignore_eos': True,
                                              'temperature': 1, 'seed': 5, 'n': 8}):
            seen.set()

    busy = []
    while not busy and n_readers < 20:  # on a slow machine it may be over before we look
        seen.clear()
        reader = threading.Thread(target=read)
        reader.start()
        seen.wait(120)
        busy = [x for x in get(s, '/slots') if x['is_processing']]
        n_readers += 1
    check(1 <= len(busy) <= 8, f'{len(busy)} busy slots')
    check_equal(busy[0]['params']['seed'], 5, 'seed')
    check(busy[0]['next_token'][0]['n_decoded'] > 0, 'decoded tokens')
    check_equal(busy[0]['n_prompt_tokens'], busy[0]['n_prompt_tokens_processed'] +
                busy[0]['n_prompt_tokens_cache'], 'prompt tokens')
    reader.join()


def props(s):
    end = time.monotonic() + 120
    p = get(s, '/props')
    while p['kv_cache']['free_blocks'] < p['kv_cache']['blocks'] and time.monotonic() < end:
        p = get(s, '/props')  # the last answer may be here before the worker's figures are
    check_equal((p['total_slots'], p['model_alias']), (16, 'forge-tiny'), 'props')
    check_equal(p['default_generation_settings']['n_ctx'], 1024, 'context')
    check('im_start' in p['chat_template'], 'template')
    check_equal(p['kv_cache']['free_blocks'], p['kv_cache']['blocks'], 'all blocks are free')


def template(s):
    """What /apply-template gives is what a chat is computed from."""
    ask = chat('What is 17 + 25?', max_tokens=1)
    status, answer = s.post('/apply-template', ask)
    check_equal(status, 200, 'apply-template')
    prompt = answer['prompt']
    check(prompt.endswith('<|im_start|>assistant\n'), f'it opens an answer: {prompt!r}')
    closed = s.post('/apply-template', {**ask, 'add_generation_prompt': False})[1]['prompt']
    check(prompt.startswith(closed) and closed.endswith('17 + 25?<|im_end|>\n'), closed)
    n = len(s.post('/tokenize', {'content': prompt, 'add_special': True})[1]['tokens'])
    used = s.post('/v1/chat/completions', ask)[1]['usage']['prompt_tokens']
    check_equal(used, n, 'prompt tokens')
    status, answer = s.post('/apply-template', {'messages': []})
    check_equal((status, answer['error']['param']), (400, 'messages'), 'no messages')


def traces(s):
    s.post('/v1/chat/completions', chat('What is 17 + 25?'))
    spans = get(s, '/traces')['resourceSpans'][0]['scopeSpans'][0]['spans']
    roots = {x['spanId']: x for x in spans if x['name'] == 'request'}
    check(roots, 'spans of requests')
    names = set()
    for x in spans:
        names.add(x['name'])
        check(int(x['startTimeUnixNano']) <= int(x['endTimeUnixNano']), x)
        if x.get('parentSpanId') in roots:
            parent = roots[x['parentSpanId']]
            check_equal(x['traceId'], parent['traceId'], 'trace of a child')
            check(int(parent['startTimeUnixNano']) <= int(x['startTimeUnixNano']), x)
    check({'request', 'queue', 'prefill', 'decode'} <= names, f'kinds of spans: {names}')


def metrics(s):
    for _ in range(2):
        s.post('/v1/chat/completions', chat('Tell me a story about a brave mouse.'))
    end = time.monotonic() + 120
    while time.monotonic() < end:  # the last answer may be here before the worker's figures are
        text = s.get('/metrics')[1].decode()
        value = {line.split()[0]: float(line.split()[1]) for line in text.splitlines()
                 if line and not line.startswith('#')}
        if value['rocmforge_kv_blocks_used'] == 0:
            break
        time.sleep(0.01)
    check(value['rocmforge_prompt_tokens_cached_total'] > 0, 'cached tokens')
    check_equal(value['rocmforge_kv_blocks_used'], 0, 'blocks in use')
    check(0 < value['rocmforge_kv_blocks_cached'] <= value['rocmforge_kv_blocks'], 'cached blocks')


with Server(sys.argv[1]) as server:
    for test in (slots, props, template, traces, metrics):
        print(test.__name__)
        test(server)
print('ok')
