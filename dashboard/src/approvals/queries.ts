import { infiniteQueryOptions } from '@tanstack/react-query'
import { api, data } from '../api/client'
import type { Approval, ApprovalStatus, Page } from '../api/types'

const PAGE = 25

/** Questions page by page, the newest first. */
export function approvalPagesQuery(status: ApprovalStatus) {
  return infiniteQueryOptions({
    queryKey: ['approvals', status],
    queryFn: ({ pageParam }) =>
      data<Page<Approval>>(
        api.GET('/api/v1/approvals', {
          params: { query: { limit: PAGE, status, ...(pageParam ? { cursor: pageParam } : {}) } },
        }),
      ),
    initialPageParam: '',
    getNextPageParam: (last) => (last.has_more ? last.next_cursor : null),
    refetchInterval: 10_000,
  })
}
