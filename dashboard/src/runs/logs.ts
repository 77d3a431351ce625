import { useQueryClient } from '@tanstack/react-query'
import { useEffect, useState } from 'react'
import { api, check, data } from '../api/client'
import { serverEvents } from '../api/event_stream'
import { address } from '../api/place'
import type { LogLine, Run } from '../api/types'
import { takeRun } from './queries'

/** At most this many lines are held; older ones are still on the server. */
export const LINES = 2000

/** Adds lines that are not there yet, keeps their order, drops the oldest beyond `LINES`. */
export function withLines(old: readonly LogLine[], more: readonly LogLine[]): readonly LogLine[] {
  const known = new Set(old.map((line) => line.seq))
  const fresh = more.filter((line) => !known.has(line.seq))
  if (fresh.length === 0) return old
  return [...old, ...fresh].sort((one, two) => one.seq - two.seq).slice(-LINES)
}

const isLog = (value: unknown): value is LogLine => typeof value === 'object' && value !== null && 'message' in value
const isRun = (value: unknown): value is Run => typeof value === 'object' && value !== null && 'status' in value && 'id' in value && 'kind' in value
const rest = (milliseconds: number): Promise<void> => new Promise((done) => window.setTimeout(done, milliseconds))

async function follow(id: string, signal: AbortSignal, take: (lines: LogLine[]) => void, onRun: (run: unknown) => void): Promise<void> {
  let last = ''
  for (let failures = 0; !signal.aborted; ) {
    try {
      const response = await check(await fetch(address(`/api/v1/runs/${encodeURIComponent(id)}/events`), { signal, headers: { Accept: 'text/event-stream', ...(last ? { 'Last-Event-ID': last } : {}) } }))
      if (!response.body) return
      failures = 0
      for await (const event of serverEvents(response.body)) {
        last = event.id ?? last
        const value: unknown = JSON.parse(event.data)
        if (event.event === 'log' && isLog(value)) take([value])
        else onRun(value)
      }
      return
    } catch {
      failures += 1
      if (failures > 8) return
      await rest(Math.min(15_000, 500 * 2 ** failures))
    }
  }
}

/** The lines of a run's log: those so far, then live ones while it is `active`. */
export function useLogs(id: string, active: boolean): readonly LogLine[] {
  const queries = useQueryClient()
  const [lines, setLines] = useState<readonly LogLine[]>([])
  useEffect(() => {
    const stop = new AbortController()
    const take = (more: LogLine[]): void => setLines((old) => withLines(old, more))
    const onRun = (value: unknown): void => {
      if (isRun(value)) takeRun(queries, value)
      else void queries.invalidateQueries({ queryKey: ['run', id] })
    }
    void data(api.GET('/api/v1/runs/{run_id}/logs', { params: { path: { run_id: id }, query: { limit: 100 } }, signal: stop.signal }))
      .then((answer) => take(answer.data))
      .catch(() => undefined)
    if (active) void follow(id, stop.signal, take, onRun)
    return () => stop.abort()
  }, [id, active, queries])
  return lines
}
