"""Every architecture with 16-bit weights on the GPU's kernels (emulated): the logits of a prompt and of what follows are
the processor's reference's, recurrent models and caches of every type included."""
import glob
import os
import sys

import logits
from machine import Machine

BIN = sys.argv[1]
DATA = os.path.join(os.path.dirname(os.getcwd()), 'shared', 'data', 'archs')
TOLERANCE = 5e-4  # the reference rounds GELU to 16 bits, as the peers do: 3e-4; the others differ by less than 1e-4
# Caches of other types round keys and values: where the last bits of these differ, by a whole step.
CACHES = (('llama-dense', 'q8_0', 3e-3), ('llama-dense', 'bf16', 1e-3), ('gpt-oss-moe', 'q8_0', 3e-3),
          ('gemma2-dense', 'f32', TOLERANCE), ('deepseek2-moe', 'q8_0', 3e-3))
CHUNKED = ('llama-dense', 'mamba2-dense', 'lfm2-dense', 'qwen35-dense', 'deepseek2-moe')
PROMPT = range(3, 41)
FOLLOWING = ('--gen', '2')


def check(machine, what, model, more, tolerance):
    # The fast forms round the activations of 16-bit weights; the reference does not.
    expected, _ = logits.compute(BIN, model, PROMPT, 'cpu', more=(*more, '--isa', 'scalar'))
    got, said = logits.compute(BIN, model, PROMPT, 'gpu', machine.env, more)
    error = 1.0
    if got is not None and len(got) == len(expected):
        error = logits.nmse(got, expected) ** 0.5
    ok = error < tolerance
    print(f'{"ok" if ok else "FAILED"}: {what}: {f"{error:.1e}" if got is not None else said[-300:]}', flush=True)
    return ok


def check_chunks(machine, name):
    """A prompt in one piece and in three: by other kernels, to the same bits."""
    model = os.path.join(DATA, f'{name}-F16.gguf')
    whole, _ = logits.compute(BIN, model, PROMPT, 'gpu', machine.env, FOLLOWING)
    cut, said = logits.compute(BIN, model, PROMPT, 'gpu', machine.env, (*FOLLOWING, '--chunk-size', '16'))
    ok = whole is not None and whole == cut
    print(f'{"ok" if ok else "FAILED"}: {name} in chunks of 16: {"equal bits" if ok else said[-300:]}', flush=True)
    return ok


def main():
    models = sorted(glob.glob(os.path.join(DATA, '*-F16.gguf')))
    if not models:
        print(f'SKIPPED: no models in {DATA}')
        sys.exit(77)
    machine = Machine(BIN)
    bad = 0
    for model in models:
        name = os.path.basename(model).split('-')[0] if 'gpt-oss' not in model else 'gpt-oss'
        bad += not check(machine, name, model, FOLLOWING, TOLERANCE)
    for name, cache, tolerance in CACHES:
        model = os.path.join(DATA, f'{name}-F16.gguf')
        bad += not check(machine, f'{name}, {cache} cache', model, (*FOLLOWING, '--kv-type', cache), tolerance)
    bad += sum(not check_chunks(machine, name) for name in CHUNKED)
    sys.exit(1 if bad else 0)


main()
