import type { StepRun } from '../api/types'

/** Milliseconds of an RFC 3339 time; NaN for none. */
export const time = (text: string | null | undefined): number => (text ? Date.parse(text) : Number.NaN)

/** Where a step's bar stands between the start and the end of the run, as shares of the whole. */
export function barOf(
  step: Pick<StepRun, 'started_at' | 'finished_at'>,
  from: number,
  to: number,
  now: number,
): { left: number; width: number } | null {
  const start = time(step.started_at)
  if (Number.isNaN(start) || to <= from) return null
  const end = step.finished_at ? time(step.finished_at) : now
  const clamp = (value: number): number => Math.min(1, Math.max(0, value))
  const left = clamp((start - from) / (to - from))
  return { left, width: Math.max(0.006, clamp((end - from) / (to - from)) - left) }
}
