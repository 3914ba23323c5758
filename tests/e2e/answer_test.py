"""The main job, as a user does it: the demo model answers over every path of the API."""
import json
import sys

from server import Server, chat, check, check_equal, stream_text

STORY = '<|im_start|>user\nTell me a story about a brave mouse.<|im_end|>\n<|im_start|>assistant\n'
PROMPT = '<|im_start|>user\nWhat is 17 + 25?<|im_end|>\n<|im_start|>assistant\n'


def answers(s):
    status, r = s.post('/v1/chat/completions', chat('What is 17 + 25?'))
    check_equal(status, 200, 'status')
    answer = r['choices'][0]['message']
    check_equal(answer['role'], 'assistant', 'role')
    check('42' in answer['content'], f'the sum in {answer["content"]!r}')
    check_equal(r['choices'][0]['finish_reason'], 'stop', 'finish reason')
    check_equal(r['object'], 'chat.completion', 'object')
    check_equal(r['model'], 'forge-tiny', 'model')
    u = r['usage']
    check_equal(u['total_tokens'], u['prompt_tokens'] + u['completion_tokens'], 'usage')
    check(r['timings']['predicted_n'] == u['completion_tokens'], 'timings')
    print('  17 + 25:', answer['content'])

    text, reason, done, error = stream_text(s.stream('/v1/chat/completions',
                                                     chat('What is 17 + 25?')))
    check_equal((text, reason, done, error), (answer['content'], 'stop', True, None), 'stream')

    status, c = s.post('/v1/completions', {'prompt': PROMPT, 'temperature': 0, 'max_tokens': 64})
    check_equal(c['choices'][0]['text'], answer['content'], 'completion of the same prompt')
    cached = c['usage'].pop('prompt_tokens_details')['cached_tokens']
    check_equal(cached, u['prompt_tokens'] - 1, 'the prefix cache has all but the last token')
    check_equal(u.pop('prompt_tokens_details'), {'cached_tokens': 0}, 'nothing was cached before')
    check_equal(c['usage'], u, 'usage of both paths')

    ids = s.post('/tokenize', {'content': PROMPT, 'parse_special': True})[1]['tokens']
    check_equal(len(ids), u['prompt_tokens'], 'token count')
    check_equal(s.post('/detokenize', {'tokens': ids})[1]['content'], PROMPT, 'detokenize')
    status, c = s.post('/v1/completions', {'prompt': ids, 'temperature': 0, 'max_tokens': 64})
    check_equal(c['choices'][0]['text'], answer['content'], 'completion of token ids')
    for question in ['What is rocmforge?', 'What is the capital of France?',
                     'Tell me a story about a brave mouse.']:
        r = s.post('/v1/chat/completions', chat(question, max_tokens=200))[1]
        print(f'  {question} {r["choices"][0]["message"]["content"]}')
        check_equal(r['choices'][0]['finish_reason'], 'stop', question)


def fields(s):
    path = '/v1/completions'
    base = {'prompt': PROMPT, 'temperature': 0, 'max_tokens': 64}
    whole = s.post(path, base)[1]['choices'][0]['text']

    r = s.post(path, {**base, 'max_tokens': 3})[1]
    check_equal(r['choices'][0]['finish_reason'], 'length', 'length')
    check_equal(r['usage']['completion_tokens'], 3, 'three tokens')
    check(whole.startswith(r['choices'][0]['text']), 'prefix of the whole')

    warm = {**base, 'temperature': 1.5, 'seed': 3, 'logprobs': 0}
    every = s.post(path, {**warm, 'n': 5})[1]['choices']
    best = s.post(path, {**warm, 'n': 2, 'best_of': 5})[1]
    means = sorted(((sum(c['logprobs']['token_logprobs']) / len(c['logprobs']['tokens']), c['text'])
                    for c in every), reverse=True)
    for c in best['choices']:  # (the end, which has no entry, counts in the server's mean)
        check(c['text'] in [text for _, text in means], 'best_of answers some of the choices')
    check_equal([c['index'] for c in best['choices']], [0, 1], 'best_of numbers')
    check(best['usage']['completion_tokens'] >= sum(len(c['logprobs']['tokens']) for c in every),
          'best_of counts what was made')

    status, r = s.post(path, {**base, 'total_timeout': 0.001, 'ignore_eos': True,
                              'max_tokens': 900})
    check(status == 504 or r['choices'][0]['finish_reason'] == 'timeout', f'{status} {r}')
    status, r = s.post(path, {**base, 'total_timeout': 0.05, 'ignore_eos': True,
                              'max_tokens': 900})
    check_equal((status, r['choices'][0]['finish_reason']), (200, 'timeout'), 'total_timeout')

    status, r = s.post(path, {**base, 'ignore_eos': True, 'max_tokens': 900},
                       {'X-Total-Timeout': '0.05'})
    check_equal((status, r['choices'][0]['finish_reason']), (200, 'timeout'), 'the header')
    status, r = s.post(path, {**base, 'total_timeout': 0}, {'X-Total-Timeout': '0.000001'})
    check_equal((status, r['choices'][0]['text']), (200, whole), 'the field outranks the header')

    full = s.post(path, {**base, 'echo': True, 'logprobs': 2})[1]['choices'][0]
    r = s.post(path, {**base, 'echo': True, 'logprobs': 2, 'max_tokens': 0})[1]
    only = r['choices'][0]
    check_equal((only['text'], only['finish_reason']), (PROMPT, 'length'), 'the prompt alone')
    check_equal(r['usage']['completion_tokens'], 0, 'nothing was made')
    n = len(only['logprobs']['tokens'])
    check_equal(n, r['usage']['prompt_tokens'], 'all of the prompt')
    check_equal(only['logprobs']['token_logprobs'], full['logprobs']['token_logprobs'][:n],
                'logprobs of the prompt')
    r = s.post('/v1/chat/completions', chat('hi', max_tokens=0))[1]['choices'][0]
    check_equal((r['message']['content'], r['finish_reason']), ('', 'length'), 'only read')

    stop = whole[4:8]
    r = s.post(path, {**base, 'stop': stop})[1]['choices'][0]
    check_equal((r['text'], r['finish_reason']), (whole[:whole.index(stop)], 'stop'), 'stop')
    r = s.post(path, {**base, 'stop': ['never there', stop]})[1]['choices'][0]
    check_equal(r['text'], whole[:whole.index(stop)], 'stop list')

    r = s.post(path, {**base, 'echo': True})[1]['choices'][0]['text']
    check(r.endswith(whole) and len(r) > len(whole), f'echo: {r!r}')

    warm = {**base, 'prompt': STORY, 'temperature': 1.3, 'max_tokens': 24,
            'top_k': 0, 'top_p': 1, 'min_p': 0}
    a = s.post(path, {**warm, 'seed': 5, 'n': 3})[1]['choices']
    b = s.post(path, {**warm, 'seed': 5, 'n': 3})[1]['choices']
    check_equal(a, b, 'the same seed')
    check_equal([c['index'] for c in a], [0, 1, 2], 'indices')
    texts = {s.post(path, {**warm, 'seed': i})[1]['choices'][0]['text'] for i in range(8)}
    check(len(texts) > 1, f'different seeds differ: {texts}')
    # Ten free tokens of an almost flat distribution: that all answers are equal will not happen.
    free = {s.post(path, {**warm, 'prompt': 'x', 'temperature': 2, 'ignore_eos': True})[1]
            ['choices'][0]['text'] for _ in range(4)}
    check(len(free) > 1, 'without a seed answers differ')

    r = s.post(path, {**base, 'logprobs': 3, 'max_tokens': 4})[1]['choices'][0]['logprobs']
    check_equal(len(r['tokens']), 4, 'logprob tokens')
    check(all(len(t) >= 3 for t in r['top_logprobs']), 'top logprobs')
    check(all(x <= 0 for x in r['token_logprobs']), 'log probabilities')
    r = s.post('/v1/chat/completions', chat('What is 17 + 25?', logprobs=True, top_logprobs=2))[1]
    content = r['choices'][0]['logprobs']['content']
    check_equal(''.join(c['token'] for c in content if c['token'] != '<|im_end|>'),
                r['choices'][0]['message']['content'], 'chat logprobs spell the answer')
    check(all(len(c['top_logprobs']) == 2 for c in content), 'chat top logprobs')

    first = s.post('/tokenize', {'content': whole})[1]['tokens'][0]
    r = s.post(path, {**base, 'logit_bias': {str(first): -100}})[1]['choices'][0]['text']
    check(r != whole, 'logit bias')

    r = s.post(path, {**base, 'prompt': ['One, two,', 'Once upon a time'], 'n': 2,
                      'max_tokens': 5})[1]['choices']
    check_equal([c['index'] for c in r], [0, 1, 2, 3], 'prompts x n')
    events = list(s.stream(path, {**base, 'stream_options': {'include_usage': True}}))
    check(events[-1] == '[DONE]' and events[-2]['choices'] == [] and 'usage' in events[-2],
          'usage chunk')
    r = s.post('/v1/chat/completions', {
        'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'What is '},
                                                  {'type': 'text', 'text': '17 + 25?'}]}],
        'temperature': 0})[1]
    check('42' in r['choices'][0]['message']['content'], 'content parts')


def messages(s):
    """Anthropic's form of the same chats."""
    question = 'What is 17 + 25?'
    wanted = s.post('/v1/chat/completions', chat(question))[1]
    body = {'max_tokens': 64, 'temperature': 0, 'messages': [{'role': 'user', 'content': question}]}
    status, r = s.post('/v1/messages', body)
    check_equal(status, 200, r)
    text = wanted['choices'][0]['message']['content']
    check_equal(r['content'], [{'type': 'text', 'text': text}], 'content')
    check_equal((r['stop_reason'], r['usage']['output_tokens']),
                ('end_turn', wanted['usage']['completion_tokens']), 'its end')
    check_equal(r['usage']['input_tokens'] + r['usage']['cache_read_input_tokens'],
                wanted['usage']['prompt_tokens'], 'input tokens')
    events = list(s.stream('/v1/messages', body))
    check_equal([e['type'] for e in events if e['type'] != 'content_block_delta'],
                ['message_start', 'content_block_start', 'content_block_stop', 'message_delta',
                 'message_stop'], 'events')
    check_equal(''.join(e['delta']['text'] for e in events if e['type'] == 'content_block_delta'),
                text, 'streamed text')
    r = s.post('/v1/messages', {**body, 'stop_sequences': ['never there', text[4:8]]})[1]
    check_equal((r['stop_reason'], r['stop_sequence'], r['content'][0]['text']),
                ('stop_sequence', text[4:8], text[:text.index(text[4:8])]), 'stop sequence')
    status, r = s.post('/v1/messages', {'messages': body['messages']})
    check_equal((status, r['type'], r['error']['type']), (400, 'error', 'invalid_request_error'), r)


def errors(s):
    def expect(status, code, path, body, param=None):
        got, r = s.post(path, body)
        check_equal((got, r['error']['code']), (status, code), f'{body!r:.80}')
        check(r['error']['message'], 'a message')
        if param:
            check_equal(r['error']['param'], param, 'param')
    path = '/v1/completions'
    expect(404, 'model_not_found', path, {'model': 'gpt-4', 'prompt': 'x'})
    expect(400, 'invalid_field', path, {'prompt': 'x', 'temperature': 9}, 'temperature')
    expect(400, 'invalid_field', path, {'prompt': 'x', 'n': 0}, 'n')
    expect(400, 'invalid_field', path, {'prompt': 'x', 'stop': [1]}, 'stop[0]')
    expect(400, 'invalid_field', '/v1/chat/completions', {'messages': 'hello'}, 'messages')
    expect(400, 'invalid_json', path, b'{"prompt": ')
    expect(400, 'invalid_token', path, {'prompt': [1, 999999]}, 'prompt')
    expect(400, 'invalid_token', path, {'prompt': 'x', 'logit_bias': {'999999': 1}}, 'logit_bias')
    expect(400, 'invalid_field', path, {'prompt': ''}, 'prompt')
    expect(400, 'context_length_exceeded', path, {'prompt': 'one two three ' * 2000}, 'prompt')
    check_equal(s.get('/nowhere')[0], 404, 'unknown path')
    check_equal(s.get('/v1/completions')[0], 405, 'method')
    check_equal(s.get('/health')[0], 200, 'health')
    check_equal(json.loads(s.get('/v1/models')[1])['data'][0]['id'], 'forge-tiny', 'models')
    check(b'rocmforge_' in s.get('/metrics')[1], 'metrics')


with Server(sys.argv[1]) as server:
    answers(server)
    fields(server)
    messages(server)
    errors(server)
print('ok')
