import { queryOptions } from '@tanstack/react-query'
import { api, data } from '../api/client'
import type { Project } from '../api/types'

/** The project that one works in. */
export function projectQuery(id: string | null) {
  return queryOptions({
    queryKey: ['project', id],
    queryFn: () =>
      data<Project>(api.GET('/api/v1/projects/{project_id}', { params: { path: { project_id: id ?? '' } } })),
    enabled: id !== null,
    staleTime: Infinity,
  })
}
