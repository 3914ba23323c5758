"""Answers that must look a certain way: JSON, a schema, a grammar; whole, streamed, sampled at every
temperature, several at once, and through the death of the worker."""
import json
import sys
import time

from server import Server, chat, check, check_equal, kill, stream_text

PATH = '/v1/chat/completions'
PERSON = {
    'type': 'object',
    'properties': {
        'name': {'type': 'string', 'maxLength': 12},
        'age': {'type': 'integer'},
        'likes': {'type': 'array', 'items': {'enum': ['red', 'green', 'blue']}, 'maxItems': 3},
        'pet': {'anyOf': [{'type': 'null'}, {'$ref': '#/$defs/pet'}]},
    },
    'required': ['name', 'age', 'pet'],
    'additionalProperties': False,
    '$defs': {'pet': {'type': 'object', 'properties': {'kind': {'enum': ['cat', 'dog']}},
                      'required': ['kind'], 'additionalProperties': False}},
}


def check_person(text):
    p = json.loads(text)
    check(isinstance(p['name'], str) and len(p['name']) <= 12, text)
    check(isinstance(p['age'], int) and not isinstance(p['age'], bool), text)
    check(all(c in ('red', 'green', 'blue') for c in p.get('likes', [])), text)
    check(len(p.get('likes', [])) <= 3, text)
    check(p['pet'] is None or p['pet'] in ({'kind': 'cat'}, {'kind': 'dog'}), text)
    check(set(p) <= {'name', 'age', 'likes', 'pet'}, text)
    check(list(p) == [k for k in ('name', 'age', 'likes', 'pet') if k in p], text)


def answer(s, form, **more):
    body = chat('Who are you?', **{'max_tokens': 900, **form, **more})
    status, r = s.post(PATH, body)
    check_equal(status, 200, r)
    return r


def schema(name):
    return {'response_format': {'type': 'json_schema',
                                'json_schema': {'name': 'answer', 'strict': True, 'schema': name}}}


def schemas(s):
    for t in (0, 0.8, 2):
        for seed in range(4):
            r = answer(s, schema(PERSON), temperature=t, seed=seed, min_p=0)
            text, reason = r['choices'][0]['message']['content'], r['choices'][0]['finish_reason']
            if reason == 'stop':
                check_person(text)
            else:  # at the highest temperature a number may go on until the tokens are used up
                check_equal(reason, 'length', text)
    print('  ', text)
    r = answer(s, schema(PERSON), n=3, temperature=0.8, seed=5)
    for c in r['choices']:
        if c['finish_reason'] == 'stop':
            check_person(c['message']['content'])
    again = answer(s, schema(PERSON), n=3, temperature=0.8, seed=5)
    check_equal(r['choices'], again['choices'], 'the same seed')
    alone = answer(s, schema(PERSON), temperature=0.8, seed=5)
    check_equal(alone['choices'][0], r['choices'][0], 'alone')
    text, reason, done, _ = stream_text(s.stream(PATH, chat('Who are you?', temperature=0.8, seed=5,
                                                            max_tokens=900, **schema(PERSON))))
    check_equal((text, reason, done), (alone['choices'][0]['message']['content'],
                                       alone['choices'][0]['finish_reason'], True), 'stream')
    flags = {'type': 'object', 'properties': {'a': {'type': 'boolean'}, 'b': {'type': 'null'}},
             'required': ['a', 'b']}
    r = answer(s, {'json_schema': flags})
    check_equal(sorted(json.loads(r['choices'][0]['message']['content'])), ['a', 'b'], 'json_schema')


def json_object(s):
    for seed in range(6):
        r = answer(s, {'response_format': {'type': 'json_object'}}, temperature=1, seed=seed)
        text, reason = r['choices'][0]['message']['content'], r['choices'][0]['finish_reason']
        if reason == 'stop':
            check(isinstance(json.loads(text), dict), text)
        check(text.startswith('{'), text)


def grammars(s):
    r = answer(s, {'grammar': 'root ::= "yes" | "no"'})
    check(r['choices'][0]['message']['content'] in ('yes', 'no'), r)
    check_equal(r['choices'][0]['finish_reason'], 'stop', 'it ends where nothing can follow')
    r = answer(s, {'grammar': 'root ::= ("é" | "🔥"){3} "!"'}, logprobs=True, top_logprobs=2)
    text = r['choices'][0]['message']['content']
    check(len(text) == 4 and set(text[:3]) <= set('é🔥') and text[3] == '!', text)
    made = [c['logprob'] for c in r['choices'][0]['logprobs']['content']]
    check(min(made) < -1, f'logprobs are the free model\'s: {made}')
    r = answer(s, {'grammar': 'root ::= [a-z]+'}, max_tokens=7)
    check_equal(r['choices'][0]['finish_reason'], 'length', 'a grammar without end')
    check(r['choices'][0]['message']['content'].isalpha(), r)
    r = answer(s, {'grammar': 'root ::= "ab" [0-9]+ "z"'}, stop='b')
    check_equal(r['choices'][0]['message']['content'], 'a', 'stop sequences count')


def tools(s):
    weather = {'type': 'function', 'function': {'name': 'weather', 'parameters': {
        'type': 'object', 'properties': {'city': {'enum': ['Paris', 'Rome']},
                                         'days': {'type': 'integer'}}, 'required': ['city']}}}
    other = {'type': 'function', 'function': {'name': 'other', 'parameters': {
        'type': 'object', 'properties': {}, 'additionalProperties': False}}}
    for choice, names in (('required', {'weather', 'other'}),
                          ({'type': 'function', 'function': {'name': 'weather'}}, {'weather'})):
        r = answer(s, {'tools': [weather, other], 'tool_choice': choice}, temperature=0.7, seed=1)
        c = r['choices'][0]
        check_equal(c['finish_reason'], 'tool_calls', r)
        call = c['message']['tool_calls'][0]
        check(call['function']['name'] in names and call['id'].startswith('call_'), call)
        arguments = json.loads(call['function']['arguments'])
        check(call['function']['name'] != 'weather' or arguments['city'] in ('Paris', 'Rome'), call)
        check_equal(c['message']['content'], None, 'no text')
    body = chat('x', tools=[weather], tool_choice='required', temperature=0.7, seed=1, max_tokens=200)
    events = [e for e in s.stream(PATH, body) if e != '[DONE]']
    calls = [e['choices'][0]['delta']['tool_calls'] for e in events
             if 'tool_calls' in e['choices'][0]['delta']]
    check_equal((len(calls), calls[0][0]['index'], calls[0][0]['function']['name']),
                (1, 0, 'weather'), 'a streamed call')
    check_equal(events[-1]['choices'][0]['finish_reason'], 'tool_calls', 'its end')


def errors(s):
    def expect(form, param, part):
        status, r = s.post(PATH, chat('x', **form))
        check_equal((status, r['error']['code'], r['error']['param']), (400, 'invalid_grammar', param),
                    r)
        check(part in r['error']['message'], r)
    expect({'grammar': 'root ::= a'}, 'grammar', "rule 'a' is not defined")
    expect({'grammar': 'root ::= "a"\nroot ::= "b"'}, 'grammar', 'line 2')
    expect({'grammar': 'root ::= root "a"'}, 'grammar', 'left-recursive')
    expect(schema({'type': 'string', 'pattern': 'x'}), 'response_format', "'pattern'")
    expect(schema({'properties': {'a': {'type': 'x'}}}), 'response_format', '/a')


def resumed(s):
    body = chat('Who are you?', temperature=1, seed=3, max_tokens=400, grammar='root ::= [a-z ]{300}')
    whole = s.post(PATH, body)[1]['choices'][0]
    for _ in range(3):
        text, killed = '', False
        for e in s.stream(PATH, body):
            if e == '[DONE]':
                break
            check('error' not in e, e)
            text += e['choices'][0]['delta'].get('content') or ''
            if len(text) > 60 and not killed:
                kill(s.child('rocmforge-worker'))
                killed = True
        check_equal((text, killed), (whole['message']['content'], True), 'through a death')
        time.sleep(0.1)


with Server(sys.argv[1]) as server:
    for test in (schemas, json_object, grammars, tools, errors, resumed):
        print(test.__name__)
        test(server)
print('ok')
