import { infiniteQueryOptions, queryOptions, type InfiniteData, type QueryClient } from '@tanstack/react-query'
import { api, data } from '../api/client'
import type { Run } from '../api/types'

export interface RunFilter {
  status?: string | undefined
  kind?: string | undefined
}

export interface RunPage {
  data: Run[]
  has_more: boolean
  next_cursor?: string | null
}

const PAGE = 25

/** The newest runs. */
export function runsQuery({ limit, ...filter }: RunFilter & { limit: number }) {
  return queryOptions({ queryKey: ['runs', 'newest', limit, filter], queryFn: () => data(api.GET('/api/v1/runs', { params: { query: { limit, ...filter } } })), staleTime: 5000 })
}

/** Runs page by page. */
export function runPagesQuery(filter: RunFilter) {
  return infiniteQueryOptions({
    queryKey: ['runs', 'pages', filter],
    queryFn: ({ pageParam }) => data(api.GET('/api/v1/runs', { params: { query: { limit: PAGE, ...filter, ...(pageParam ? { cursor: pageParam } : {}) } } })),
    initialPageParam: '',
    getNextPageParam: (last) => (last.has_more ? last.next_cursor : null),
    staleTime: 5000,
  })
}

/** One run with its steps. */
export function runQuery(id: string) {
  return queryOptions({ queryKey: ['run', id], queryFn: () => data(api.GET('/api/v1/runs/{run_id}', { params: { path: { run_id: id } } })) })
}

const merged = (page: RunPage, run: Run): RunPage => ({ ...page, data: page.data.map((each) => (each.id === run.id ? { ...each, ...run, steps: each.steps } : each)) })

/** Puts a run that came over the live stream into everything that shows it; a new one makes the lists load again. */
export function takeRun(queries: QueryClient, run: Run): void {
  let known = false
  const look = (page: RunPage): RunPage => {
    known ||= page.data.some((each) => each.id === run.id)
    return merged(page, run)
  }
  queries.setQueriesData<RunPage>({ queryKey: ['runs', 'newest'] }, (old) => old && look(old))
  queries.setQueriesData<InfiniteData<RunPage>>({ queryKey: ['runs', 'pages'] }, (old) => old && { ...old, pages: old.pages.map(look) })
  if (!known) void queries.invalidateQueries({ queryKey: ['runs'] })
  queries.setQueryData<Run>(['run', run.id], (old) => old && { ...old, ...run, steps: run.steps?.length ? run.steps : old.steps })
}
