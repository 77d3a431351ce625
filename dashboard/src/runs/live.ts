import { useQueryClient } from '@tanstack/react-query'
import { useEffect } from 'react'
import { live } from '../api/live'
import type { Run } from '../api/types'
import { takeRun } from './queries'

const FINAL = new Set(['succeeded', 'failed', 'cancelled'])

/** Keeps runs, models and what is asked on all pages as the live stream tells them. */
export function useLiveData(): void {
  const queries = useQueryClient()
  useEffect(() => {
    const stale = new Set<string>()
    let timer = 0
    const reload = (key: string): void => {
      stale.add(key)
      timer ||= window.setTimeout(() => {
        timer = 0
        stale.forEach((each) => void queries.invalidateQueries({ queryKey: [each] }))
        stale.clear()
      }, 700)
    }
    const stopRuns = live.on('run', (data) => {
      const run = data as Run
      if (takeRun(queries, run)) reload('runs')
      if (run.status === 'waiting') reload('approvals')
      if (FINAL.has(run.status) && /pull|train|import/.test(run.kind)) reload('models')
    })
    const stopModels = live.on('models', () => reload('models'))
    return () => {
      stopRuns()
      stopModels()
      window.clearTimeout(timer)
    }
  }, [queries])
}
