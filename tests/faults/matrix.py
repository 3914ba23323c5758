"""The fault matrix: every fault that the server is built to live through, injected into the real
programs, with what was measured beside the bound.

    python3 tests/faults/matrix.py BIN              everything that runs here
    python3 tests/faults/matrix.py BIN --quick      without the rows that take long, and without running
                                                    again what tests of the suite show
    python3 tests/faults/matrix.py BIN --rows 1,13  only these
    --times    how long each row took stands before it
    --strict   a row that behaves but is later than its bound counts as failed: for a quiet machine

A row holds, is late (the behaviour is right, the bound was missed), FAILED, or did not run, with the
reason. After every row: no process is left, no descriptor, no request, no lock; the supervisor has
not grown; every stream ended once. README's table "what happens" must be covered row by row.
"""
import argparse
import os
import re
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rig import Skip, check  # noqa: E402

ROWS = []
TESTED = {}  # what a test of the suite said; one may stand for several rows


class Row:
    def __init__(self, number, fault, injected, bound, run, slow=False, promise=None, reason=None,
                 test=None):
        self.number, self.fault, self.injected, self.bound = number, fault, injected, bound
        self.run, self.slow, self.promise, self.reason = run, slow, promise, reason
        self.test = test


def row(number, fault, injected, bound=None, slow=False, promise=None):
    """Decorates a function of the folder of programs that returns seconds, (seconds, note) or None,
    and raises when the row does not hold."""
    def add(f):
        ROWS.append(Row(number, fault, injected, bound, f, slow, promise))
        return f
    return add


def tested(number, fault, injected, bound, test, slow=False):
    """A row that a test executable of the suite injects, because the fault needs a hostile double of
    one of our processes."""
    def run(bin_dir):
        if test not in TESTED:
            build = os.path.dirname(os.path.abspath(bin_dir))
            TESTED[test] = subprocess.run(
                ['ctest', '--test-dir', build, '-R', f'^{test}$', '--no-tests=error'],
                capture_output=True, text=True, timeout=600)
        out = TESTED[test]
        check(out.returncode == 0, f'{test}:\n{out.stdout[-2000:]}')
        if 'Skipped' in out.stdout:
            raise Skip(f'{test} was skipped')
        return None, f'by {test}'
    ROWS.append(Row(number, fault, injected, bound, run, slow, test=test))


def absent(number, fault, reason):
    """A row that cannot run here."""
    ROWS.append(Row(number, fault, '', None, None, reason=reason))


def check_readme():
    """Every row of README's table is promised by a row here, and the other way round."""
    with open('README.md') as f:
        text = f.read()
    table = re.search(r'^\| what happens \|.*\n\|[-| ]+\n((?:\|.*\n)+)', text, re.M)
    check(table, 'README.md has no table "what happens"')
    says = {line.split('|')[1].strip() for line in table.group(1).splitlines()}
    held = {r.promise for r in ROWS if r.promise}
    check(says == held, f'README.md promises what no row checks: {sorted(says - held)}; rows name '
                        f'what README.md does not say: {sorted(held - says)}')


def order(r):
    m = re.match(r'(\D*)(\d+)(.*)', r.number)
    return m.group(1), int(m.group(2)), m.group(3)


def seconds(value):
    if value is None:
        return ''
    return f'{value * 1000:.0f} ms' if value < 1 else f'{value:.1f} s'


def run_row(r, bin_dir):
    """(verdict, measured, note)"""
    if r.reason:
        return 'not here', None, r.reason
    try:
        got = r.run(bin_dir)
    except Skip as e:
        return 'not here', None, str(e)
    except (Exception, SystemExit):  # the latter of a server that does not start
        return 'FAILED', None, traceback.format_exc()
    measured, note = got if isinstance(got, tuple) else (got, '')
    late = measured is not None and r.bound is not None and measured > r.bound
    return 'late' if late else 'holds', measured, note


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('bin')
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--strict', action='store_true')
    parser.add_argument('--times', action='store_true')
    parser.add_argument('--rows')
    args = parser.parse_args()
    import rows_card, rows_client, rows_file, rows_gateway, rows_gpu, rows_machine, rows_worker  # noqa: F401,E401
    check_readme()
    wanted = args.rows.split(',') if args.rows else None
    counts = {'holds': 0, 'late': 0, 'FAILED': 0, 'not here': 0, 'suite': 0}
    failures = []
    begin = time.monotonic()
    print(f'{"ROW":<5}{"FAULT":<44}{"INJECTED":<42}{"BOUND":>8}{"MEASURED":>10}  VERDICT')
    for r in sorted(ROWS, key=order):
        if (wanted and r.number not in wanted) or (args.quick and r.slow):
            continue
        at = time.monotonic()
        if args.quick and r.test:
            verdict, measured, note = 'suite', None, f'by {r.test}'
        else:
            verdict, measured, note = run_row(r, args.bin)
        if args.times:
            print(f'{time.monotonic() - at:6.1f} s ', end='')
        counts[verdict] += 1
        is_text = verdict in ('FAILED', 'not here')
        print(f'{r.number:<5}{r.fault:<44}{r.injected:<42}{seconds(r.bound):>8}'
              f'{seconds(measured):>10}  {verdict}{": " + note if note and verdict != "FAILED" else ""}',
              flush=True)
        if is_text and verdict == 'FAILED':
            failures.append((r, note))
    for r, note in failures:
        print(f'\n--- row {r.number}: {r.fault}\n{note}')
    print(f'\n{counts["holds"]} hold, {counts["late"]} late, {counts["FAILED"]} failed, '
          f'{counts["suite"]} are left to the suite, {counts["not here"]} did not run here; {time.monotonic() - begin:.0f} s')
    sys.exit(1 if counts['FAILED'] or (args.strict and counts['late']) else 0)


if __name__ == '__main__':
    sys.modules['matrix'] = sys.modules['__main__']
    main()
