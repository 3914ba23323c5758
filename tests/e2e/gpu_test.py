"""The whole server on the GPU, as far as that goes without one: preflight, lock, kernels on the emulator. Its text is the
CPU's; nothing is allocated on the device once the server is ready; a fault in a kernel is told by the kernel's name, and
the answer goes on."""
import os
import sys

from machine import QUESTIONS, SMALL, STORY, Machine, ask
from server import Server, chat, check, check_equal, stream_text

BIN = sys.argv[1]
SMALL = [*SMALL, '--kv-type', 'q8_0']  # so that no piece of the cache is as large as a row of logits
with Server(BIN, '--device', 'cpu', *SMALL) as server:
    expected = [ask(server, q) for q in QUESTIONS]

machine = Machine(BIN)
with Server(BIN, '--device', 'gpu', *SMALL, env=machine.env) as server:
    check('on gpu gfx1100' in server.log_text(), 'the log says where the model is')
    n_mallocs = machine.calls('malloc')
    check_equal([ask(server, q) for q in QUESTIONS], expected, 'greedy text on the GPU')
    n_fetched = machine.calls('fetch 8192')
    story = stream_text(server.stream('/v1/chat/completions', STORY))
    check(machine.calls('graph') > 10, 'decoding is replayed')
    check(machine.calls('fetch 8192') <= n_fetched + 4, 'logits stay where they are, but for checks of replays')
    check('is off from here on' not in server.log_text(), 'replayed steps are those of the plain path')
    machine.fault('sticky@gemv_one_q8_0:100')
    check_equal(stream_text(server.stream('/v1/chat/completions', STORY)), story, 'after a fault')
    check('decode of 1 rows; kernel: gemv_one_q8_0' in server.log_text(), 'the log says what the GPU was doing')
    check_equal(machine.calls('malloc'), 2 * n_mallocs, 'no device memory but at load')

with Server(BIN, '--device', 'gpu', *SMALL, '--safe-mode', 'on', env=machine.env) as server:
    for fault, kernel in (('sticky@gemv_one_q8_0:40', 'gemv_one_q8_0'),
                          ('abort@attention_split_one_q8:20', 'attention_split_one_q8')):
        events = server.stream('/v1/chat/completions', STORY)
        seen = [next(events) for _ in range(3)]
        machine.fault(fault)
        check_equal(stream_text(seen + list(events)), story, f'the story, with {fault}')
        check(not os.path.exists(machine.faults), f'{fault} has happened')
        words = [line for line in server.log_text().splitlines() if 'last words: GPU' in line]
        check(words and words[-1].endswith('kernel: ' + kernel), f'the kernel of {fault} is named: {words}')

with Server(BIN, '--device', 'auto', *SMALL, env={**machine.env, 'HIP_DOUBLE': 'wrong@probe*0'}) as server:
    check('computing on the CPU: kernel: 1 of 4096 numbers are wrong' in server.log_text(),
          'a card that computes wrongly is not used')
    check_equal(ask(server, QUESTIONS[0]), expected[0], 'the text')

# Every access of every kernel, in a prompt and a few tokens.
checked = Machine(BIN, checked=True)
with Server(BIN, '--device', 'gpu', *SMALL, '--safe-mode', 'on', env=checked.env) as server:
    text = server.post('/v1/chat/completions', chat(QUESTIONS[0], max_tokens=4))[1]
    check(expected[0].startswith(text['choices'][0]['message']['content']), 'the text, checked')
