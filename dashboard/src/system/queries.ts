import { queryOptions } from '@tanstack/react-query'
import { api, data } from '../api/client'
import type { Page, SystemHealth, SystemInfo, UsageRow } from '../api/types'

/** The state of every part of the server. */
export const healthQuery = queryOptions({
  queryKey: ['health'],
  queryFn: () => data<SystemHealth>(api.GET('/api/v1/system/health')),
  refetchInterval: 15_000,
})

/** Version and age of the server. */
export const infoQuery = queryOptions({
  queryKey: ['info'],
  queryFn: () => data<SystemInfo>(api.GET('/api/v1/system/info')),
  staleTime: 60_000,
})

/** Calls, tokens and cost since midnight, by model. */
export const usageQuery = queryOptions({
  queryKey: ['usage', 'model'],
  queryFn: () => {
    const since = new Date()
    since.setHours(0, 0, 0, 0)
    return data<Page<UsageRow>>(
      api.GET('/api/v1/usage', { params: { query: { group_by: 'model', since: since.toISOString() } } }),
    )
  },
  refetchInterval: 30_000,
})
