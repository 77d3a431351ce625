import { expect, test } from 'vitest'
import type { LogLine, Run } from '../api/types'
import { LINES, withLines } from './log_lines'
import { progressWords } from './progress'
import { misses, withRun } from './queries'
import { barOf } from './timeline_bar'

const line = (id: number): LogLine => ({
  id,
  at: '2026-05-04T12:00:00Z',
  step: 'a',
  level: 'info',
  message: String(id),
})
const at = (seconds: number): string => new Date(seconds * 1000).toISOString()

test('log lines stay in order, come once, and are bounded', () => {
  const lines = withLines([line(1), line(3)], [line(3), line(2)])
  expect(lines.map((each) => each.id)).toEqual([1, 2, 3])
  expect(withLines(lines, [line(1)])).toBe(lines)
  const many = withLines(
    [],
    Array.from({ length: LINES + 50 }, (_, id) => line(id)),
  )
  expect([many.length, many[0]?.id]).toEqual([LINES, 50])
})

test.each([
  [
    { started_at: at(0), finished_at: at(50) },
    { left: 0, width: 0.5 },
  ],
  [
    { started_at: at(50), finished_at: null },
    { left: 0.5, width: 0.3 },
  ],
  [
    { started_at: at(100), finished_at: at(100) },
    { left: 1, width: 0.006 },
  ],
  [{ started_at: null, finished_at: null }, null],
])('bar of %j', (step, expected) => {
  const bar = barOf(step, 0, 100_000, 80_000)
  if (expected === null) expect(bar).toBeNull()
  else expect([bar?.left, bar?.width]).toEqual([expect.closeTo(expected.left), expect.closeTo(expected.width)])
})

test('a run without duration has no bars', () =>
  expect(barOf({ started_at: at(0), finished_at: at(0) }, 0, 0, 0)).toBeNull())

test.each([
  [{ done: 1, total: 3, unit: 'steps' }, '1 of 3 steps'],
  [{ done: 5e6, total: 1e7, unit: 'bytes' }, '5.0 MB of 10.0 MB'],
  [{ done: 12, total: null, unit: 'rows' }, '12 rows'],
  [null, ''],
])('progress %j', (progress, expected) => expect(progressWords(progress)).toBe(expected))

const run = (id: string, created: number, change: Partial<Run> = {}): Run => ({
  id,
  kind: 'workflow',
  name: 'n',
  version: null,
  status: 'running',
  progress: null,
  created_at: at(created),
  started_at: null,
  finished_at: null,
  error: null,
  ...change,
})

test.each([
  ['a newer run', [run('a', 10)], {}, run('b', 20), true],
  ['an older run, beyond the page', [run('a', 10)], {}, run('b', 5), false],
  ['a run that is there', [run('a', 10)], {}, run('a', 10), false],
  ['the first run of all', [], {}, run('a', 1), true],
  ['a run of another status', [], { status: 'failed' as const }, run('a', 1), false],
  ['a run of another kind', [run('a', 10)], { kind: 'training' }, run('b', 20), false],
])('a list misses %s', (_, rows, filter, fresh, expected) => expect(misses(rows, filter, fresh)).toBe(expected))

test('a row takes what is new and keeps its steps', () => {
  const step = { key: 'a', uses: 'b', status: 'running', attempts: 1, started_at: null, finished_at: null }
  const page = withRun(
    { data: [run('a', 1, { steps: [step] }), run('b', 2)] },
    run('a', 1, { status: 'failed', steps: [] }),
  )
  expect(page.data.map((each) => [each.id, each.status, each.steps?.length])).toEqual([
    ['a', 'failed', 1],
    ['b', 'running', undefined],
  ])
})
