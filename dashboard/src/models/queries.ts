import { queryOptions, type QueryClient } from '@tanstack/react-query'
import { api, data } from '../api/client'
import type { Model } from '../api/types'

/** All models of every kind. */
export function modelsQuery() {
  return queryOptions({ queryKey: ['models'], queryFn: () => data(api.GET('/api/v1/models', { params: { query: { limit: 100 } } })), staleTime: 15_000 })
}

/** The versions of one model, newest first. */
export function versionsQuery(name: string) {
  return queryOptions({ queryKey: ['models', name, 'versions'], queryFn: () => data(api.GET('/api/v1/models/{name}/versions', { params: { path: { name } } })) })
}

type Listed = { data: Model[] }

/** Puts a model that came over the live stream into the list. */
export function takeModel(queries: QueryClient, model: Partial<Model> & { name?: string }): void {
  if (!model.name) return
  queries.setQueryData<Listed>(['models'], (old) => old && { ...old, data: old.data.map((each) => (each.name === model.name ? { ...each, ...model } : each)) })
}
