import type { LogLine } from '../api/types'

/** At most this many lines are held; older ones are still on the server. */
export const LINES = 2000

/** Adds lines that are not there yet, keeps their order, drops the oldest beyond `LINES`. */
export function withLines(old: readonly LogLine[], more: readonly LogLine[]): readonly LogLine[] {
  const known = new Set(old.map((line) => line.id))
  const fresh = more.filter((line) => !known.has(line.id))
  if (fresh.length === 0) return old
  return [...old, ...fresh].sort((one, two) => one.id - two.id).slice(-LINES)
}
