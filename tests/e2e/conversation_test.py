"""The prefix cache as clients see it: a conversation computes only what is new in every turn, a long
prompt that comes again starts at once, and cached answers are the same as computed ones."""
import sys
import time

from server import Server, chat, check, check_equal

TURNS = ['What is 17 + 25?', 'Tell me a story about a brave mouse.', 'What is rocmforge?',
         'What is the capital of France?']


def conversation(s):
    messages, before = [], 0
    for turn in range(20):
        messages.append({'role': 'user', 'content': TURNS[turn % len(TURNS)]})
        body = {'messages': messages, 'temperature': 0, 'max_tokens': 24}
        r = s.post('/v1/chat/completions', body)[1]
        u = r['usage']
        cached = u['prompt_tokens_details']['cached_tokens']
        # All that stood before, but for an answer's last token when its length ended it.
        check(cached >= before - 1, f'turn {turn}: {cached} of {before} tokens were reused')
        check(u['prompt_tokens'] - cached < 64, f'turn {turn}: {u}')
        before = u['prompt_tokens'] + u['completion_tokens'] - 1
        messages.append(r['choices'][0]['message'])
    print(f'  20 turns: the last had {u["prompt_tokens"]} prompt tokens, {cached} of them cached')


def first_token_ms(s, prompt):
    start = time.monotonic()
    r = s.post('/v1/completions', {'prompt': prompt, 'temperature': 0, 'max_tokens': 1})[1]
    return (time.monotonic() - start) * 1e3, r


def long_prefix(s):
    ids = s.post('/tokenize', {'content': TURNS[1]})[1]['tokens']
    times = []
    for i in range(3):
        prefix = [ids[(k * k + i) % len(ids)] for k in range(960)]
        cold, first = first_token_ms(s, prefix + ids[:5])
        warm, second = first_token_ms(s, prefix + ids[5:9])
        check_equal(first['usage']['prompt_tokens_details']['cached_tokens'], 0, 'cold')
        check_equal(second['usage']['prompt_tokens_details']['cached_tokens'], 960, 'warm')
        times.append((cold, warm))
    print('  first token of a prefix of 960 tokens, then again (ms):',
          ', '.join(f'{c:.1f} / {w:.1f}' for c, w in times))


def same_answers(s):
    for text in TURNS:
        first = s.post('/v1/chat/completions', chat(text, logprobs=True, top_logprobs=3))[1]
        second = s.post('/v1/chat/completions', chat(text, logprobs=True, top_logprobs=3))[1]
        check(second['usage']['prompt_tokens_details']['cached_tokens'] > 0, 'cached')
        check_equal(second['choices'], first['choices'], text)


with Server(sys.argv[1]) as server:
    for test in (same_answers, conversation, long_prefix):
        print(test.__name__)
        test(server)
print('ok')
