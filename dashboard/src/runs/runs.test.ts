import { expect, test } from 'vitest'
import type { LogLine } from '../api/types'
import { LINES, withLines } from './log_lines'
import { progressWords } from './progress'
import { barOf } from './timeline_bar'

const line = (id: number): LogLine => ({ id, at: '2026-05-04T12:00:00Z', step: 'a', level: 'info', message: String(id) })
const at = (seconds: number): string => new Date(seconds * 1000).toISOString()

test('log lines stay in order, come once, and are bounded', () => {
  const lines = withLines([line(1), line(3)], [line(3), line(2)])
  expect(lines.map((each) => each.id)).toEqual([1, 2, 3])
  expect(withLines(lines, [line(1)])).toBe(lines)
  const many = withLines([], Array.from({ length: LINES + 50 }, (_, id) => line(id)))
  expect([many.length, many[0]?.id]).toEqual([LINES, 50])
})

test.each([
  [{ started_at: at(0), finished_at: at(50) }, { left: 0, width: 0.5 }],
  [{ started_at: at(50), finished_at: null }, { left: 0.5, width: 0.3 }],
  [{ started_at: at(100), finished_at: at(100) }, { left: 1, width: 0.006 }],
  [{ started_at: null, finished_at: null }, null],
])('bar of %j', (step, expected) => {
  const bar = barOf(step, 0, 100_000, 80_000)
  if (expected === null) expect(bar).toBeNull()
  else expect([bar?.left, bar?.width]).toEqual([expect.closeTo(expected.left), expect.closeTo(expected.width)])
})

test('a run without duration has no bars', () => expect(barOf({ started_at: at(0), finished_at: at(0) }, 0, 0, 0)).toBeNull())

test.each([
  [{ done: 1, total: 3, unit: 'steps' }, '1 of 3 steps'],
  [{ done: 5e6, total: 1e7, unit: 'bytes' }, '5.0 MB of 10.0 MB'],
  [{ done: 12, total: null, unit: 'rows' }, '12 rows'],
  [null, ''],
])('progress %j', (progress, expected) => expect(progressWords(progress)).toBe(expected))
