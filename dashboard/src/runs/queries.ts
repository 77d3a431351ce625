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
  return queryOptions({
    queryKey: ['runs', 'newest', limit, filter],
    queryFn: () => data<Page<Run>>(api.GET('/api/v1/runs', { params: { query: { limit, ...filter } } })),
    staleTime: 5000,
  })
}

/** Runs page by page. */
export function runPagesQuery(filter: RunFilter) {
  return infiniteQueryOptions({
    queryKey: ['runs', 'pages', filter],
    queryFn: ({ pageParam }) =>
      data<Page<Run>>(
        api.GET('/api/v1/runs', {
          params: { query: { limit: PAGE, ...filter, ...(pageParam ? { cursor: pageParam } : {}) } },
        }),
      ),
    initialPageParam: '',
    getNextPageParam: (last) => (last.has_more ? last.next_cursor : null),
    staleTime: 5000,
  })
}

/** One run with its steps. */
export function runQuery(id: string) {
  return queryOptions({
    queryKey: ['run', id],
    queryFn: () => data<Run>(api.GET('/api/v1/runs/{run_id}', { params: { path: { run_id: id } } })),
  })
}

/** Puts a run as it now stands into a page that has it. */
export function withRun(page: Page<Run>, run: Run): Page<Run> {
  return {
    ...page,
    data: page.data.map((each) => (each.id === run.id ? { ...each, ...run, steps: each.steps } : each)),
  }
}

/** Whether a list that is loaded should have this run and has it not: then it is loaded again. */
export function misses(rows: readonly Run[], filter: RunFilter, run: Run): boolean {
  if ((filter.status && filter.status !== run.status) || (filter.kind && filter.kind !== run.kind)) return false
  const newest = rows[0]
  return !rows.some((each) => each.id === run.id) && (!newest || run.created_at >= newest.created_at)
}

/** Puts a run as it now stands into everything that shows it. Returns whether a list should be loaded again. */
export function takeRun(queries: QueryClient, run: Run): boolean {
  const lists = [
    ...queries
      .getQueriesData<Page<Run>>({ queryKey: ['runs', 'newest'] })
      .map(([key, page]) => ({ filter: key[3] as RunFilter, rows: page?.data })),
    ...queries
      .getQueriesData<InfiniteData<Page<Run>>>({ queryKey: ['runs', 'pages'] })
      .map(([key, all]) => ({ filter: key[2] as RunFilter, rows: all?.pages.flatMap((page) => page.data) })),
  ]
  queries.setQueriesData<Page<Run>>({ queryKey: ['runs', 'newest'] }, (old) => old && withRun(old, run))
  queries.setQueriesData<InfiniteData<Page<Run>>>(
    { queryKey: ['runs', 'pages'] },
    (old) => old && { ...old, pages: old.pages.map((page) => withRun(page, run)) },
  )
  queries.setQueryData<Run>(
    ['run', run.id],
    (old) => old && { ...old, ...run, steps: run.steps?.length ? run.steps : old.steps },
  )
  return lists.some(({ filter, rows }) => rows !== undefined && misses(rows, filter, run))
}
