import { infiniteQueryOptions, queryOptions, type InfiniteData, type QueryClient } from '@tanstack/react-query'
import { api, data } from '../api/client'
import type { Page, Run, RunStatus } from '../api/types'

export interface RunFilter {
  status?: RunStatus | undefined
  kind?: string | undefined
}

const PAGE = 25

/** The newest runs. */
export function runsQuery({ limit, ...filter }: RunFilter & { limit: number }) {
  return queryOptions({ queryKey: ['runs', 'newest', limit, filter], queryFn: () => data<Page<Run>>(api.GET('/api/v1/runs', { params: { query: { limit, ...filter } } })), staleTime: 5000 })
}

/** Runs page by page. */
export function runPagesQuery(filter: RunFilter) {
  return infiniteQueryOptions({
    queryKey: ['runs', 'pages', filter],
    queryFn: ({ pageParam }) => data<Page<Run>>(api.GET('/api/v1/runs', { params: { query: { limit: PAGE, ...filter, ...(pageParam ? { cursor: pageParam } : {}) } } })),
    initialPageParam: '',
    getNextPageParam: (last) => (last.has_more ? last.next_cursor : null),
    staleTime: 5000,
  })
}

/** One run with its steps. */
export function runQuery(id: string) {
  return queryOptions({ queryKey: ['run', id], queryFn: () => data<Run>(api.GET('/api/v1/runs/{run_id}', { params: { path: { run_id: id } } })) })
}

const merged = (page: Page<Run>, run: Run): Page<Run> => ({ ...page, data: page.data.map((each) => (each.id === run.id ? { ...each, ...run, steps: each.steps } : each)) })

/** Puts a run as it now stands into everything that shows it. Returns whether any list had it. */
export function takeRun(queries: QueryClient, run: Run): boolean {
  let known = false
  const look = (page: Page<Run>): Page<Run> => {
    known ||= page.data.some((each) => each.id === run.id)
    return merged(page, run)
  }
  queries.setQueriesData<Page<Run>>({ queryKey: ['runs', 'newest'] }, (old) => old && look(old))
  queries.setQueriesData<InfiniteData<Page<Run>>>({ queryKey: ['runs', 'pages'] }, (old) => old && { ...old, pages: old.pages.map(look) })
  queries.setQueryData<Run>(['run', run.id], (old) => old && { ...old, ...run, steps: run.steps?.length ? run.steps : old.steps })
  return known
}
