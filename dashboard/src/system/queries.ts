import { queryOptions } from '@tanstack/react-query'
import { api, data } from '../api/client'

/** The state of every part of the server. */
export const healthQuery = queryOptions({ queryKey: ['health'], queryFn: () => data(api.GET('/api/v1/system/health')), refetchInterval: 15_000 })

/** Version and age of the server. */
export const infoQuery = queryOptions({ queryKey: ['info'], queryFn: () => data(api.GET('/api/v1/system/info')), staleTime: 60_000 })

/** Calls, tokens and cost, grouped by model, hour or day. */
export function usageQuery(groupBy: 'model' | 'hour' | 'day') {
  return queryOptions({
    queryKey: ['usage', groupBy],
    queryFn: () => {
      const start = new Date()
      start.setHours(0, 0, 0, 0)
      return data(api.GET('/api/v1/usage', { params: { query: { group_by: groupBy, start: start.toISOString() } } }))
    },
    refetchInterval: 30_000,
  })
}
