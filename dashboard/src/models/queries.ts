import { queryOptions, type QueryClient } from '@tanstack/react-query'
import { api, data } from '../api/client'
import type { Model, ModelVersion, Page, Route } from '../api/types'

const PAGES = 10

async function allModels(): Promise<Page<Model>> {
  const found: Model[] = []
  let cursor: string | null | undefined
  for (let page = 0; page < PAGES; page += 1) {
    const answer = await data<Page<Model>>(
      api.GET('/api/v1/models', { params: { query: { limit: 100, ...(cursor ? { cursor } : {}) } } }),
    )
    found.push(...answer.data)
    cursor = answer.has_more ? answer.next_cursor : null
    if (!cursor) break
  }
  return { data: found }
}

/** All models of every kind: those of the catalogue and one's own. */
export const modelsQuery = queryOptions({ queryKey: ['models'], queryFn: allModels, staleTime: 15_000 })

/** The names that language models can be asked by. */
export const routesQuery = queryOptions({
  queryKey: ['routes'],
  queryFn: () => data<Page<Route>>(api.GET('/api/v1/routes')),
  staleTime: 30_000,
})

/** The versions of one model, newest first. */
export function versionsQuery(name: string) {
  return queryOptions({
    queryKey: ['models', name, 'versions'],
    queryFn: () => data<Page<ModelVersion>>(api.GET('/api/v1/models/{name}/versions', { params: { path: { name } } })),
  })
}

/** Puts what an action answered into the list. */
export function takeModel(queries: QueryClient, model: Model): void {
  queries.setQueryData(
    modelsQuery.queryKey,
    (old) => old && { ...old, data: old.data.map((each) => (each.name === model.name ? { ...each, ...model } : each)) },
  )
}
