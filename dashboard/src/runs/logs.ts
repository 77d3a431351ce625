import { useQueryClient } from '@tanstack/react-query'
import { useEffect, useState } from 'react'
import { check } from '../api/client'
import { serverEvents } from '../api/event_stream'
import { address } from '../api/place'
import { Problem } from '../api/problem'
import type { LogLine } from '../api/types'
import { withLines } from './log_lines'

const isLog = (value: unknown): value is LogLine =>
  typeof value === 'object' && value !== null && 'message' in value && 'level' in value
const rest = (milliseconds: number): Promise<void> => new Promise((done) => window.setTimeout(done, milliseconds))

/** Follows the timeline of a run from its beginning to its end, over broken connections. */
async function follow(
  id: string,
  signal: AbortSignal,
  onLog: (line: LogLine) => void,
  onChange: () => void,
): Promise<void> {
  let last = ''
  for (let failures = 0; failures < 9 && !signal.aborted; ) {
    try {
      const response = await check(
        await fetch(address(`/api/v1/runs/${encodeURIComponent(id)}/events`), {
          signal,
          headers: { Accept: 'text/event-stream', ...(last ? { 'Last-Event-ID': last } : {}) },
        }),
      )
      if (!response.body) return
      for await (const event of serverEvents(response.body)) {
        if (event.event === 'error') throw new Problem(0, 'stream_ended', 'The stream ended early.')
        failures = 0
        last = event.id ?? last
        const value: unknown = JSON.parse(event.data)
        if (event.event === 'log' && isLog(value)) onLog(value)
        else onChange()
      }
      return
    } catch (error) {
      if (error instanceof Problem && error.status >= 400 && error.status < 500) return
      failures += 1
      await rest(Math.min(15_000, 400 * 2 ** failures))
    }
  }
}

/** The lines of a run's log, those so far and then live ones; the run itself is loaded again when a step changes. */
export function useLogs(id: string): readonly LogLine[] {
  const queries = useQueryClient()
  const [lines, setLines] = useState<readonly LogLine[]>([])
  useEffect(() => {
    const stop = new AbortController()
    let waiting: LogLine[] = []
    let changed = false
    let timer = 0
    const flush = (): void => {
      timer = 0
      const more = waiting
      waiting = []
      if (more.length > 0) setLines((old) => withLines(old, more))
      if (changed) void queries.invalidateQueries({ queryKey: ['run', id] })
      changed = false
    }
    const soon = (): void => {
      timer ||= window.setTimeout(flush, 120)
    }
    setLines([])
    void follow(
      id,
      stop.signal,
      (line) => {
        waiting.push(line)
        soon()
      },
      () => {
        changed = true
        soon()
      },
    )
    return () => {
      stop.abort()
      window.clearTimeout(timer)
    }
  }, [id, queries])
  return lines
}
