import { Button, Select, Skeleton, TextInput } from '@mantine/core'
import { useInfiniteQuery, useMutation, useQueryClient } from '@tanstack/react-query'
import { getRouteApi, Link, useNavigate } from '@tanstack/react-router'
import { useState, type ReactNode } from 'react'
import { api, data } from '../api/client'
import { APPROVAL_STATUSES, type Approval, type ApprovalStatus } from '../api/types'
import { useNow } from '../ui/clock'
import { ago } from '../ui/format'
import { IconApprovals, IconCheck, IconClose } from '../ui/icons'
import { useTitle } from '../ui/title'
import { complain, tell } from '../ui/toast'
import { Trouble } from '../ui/trouble'
import { Chip, Empty, PageHead, Status } from '../ui/words'
import { approvalPagesQuery } from './queries'
import { endsIn, whoMay } from './words'
import './approvals.css'

const route = getRouteApi('/approvals')
const DONE = { approve: 'Approved', reject: 'Rejected' } as const
type Verb = keyof typeof DONE

function Decide({ approval }: { approval: Approval }): ReactNode {
  const queries = useQueryClient()
  const [comment, setComment] = useState('')
  const act = useMutation({
    mutationFn: (verb: Verb) => {
      const call = { params: { path: { approval_id: approval.id } }, body: { comment: comment.trim() || null } }
      return verb === 'approve'
        ? data<Approval>(api.POST('/api/v1/approvals/{approval_id}/approve', call))
        : data<Approval>(api.POST('/api/v1/approvals/{approval_id}/reject', call))
    },
    onSuccess: (_, verb) => tell(`${DONE[verb]}: ${approval.message.slice(0, 80)}`),
    onError: (error) => complain('This could not be decided', error),
    onSettled: () => void queries.invalidateQueries({ queryKey: ['approvals'] }),
  })
  const busy = (verb: Verb): boolean => act.isPending && act.variables === verb
  return (
    <form className="approval-decide" onSubmit={(event) => event.preventDefault()}>
      <TextInput
        aria-label="Comment"
        placeholder="Comment"
        value={comment}
        maxLength={10_000}
        onChange={(event) => setComment(event.currentTarget.value)}
      />
      <Button
        leftSection={<IconCheck size={16} />}
        loading={busy('approve')}
        disabled={act.isPending}
        onClick={() => act.mutate('approve')}
      >
        Approve
      </Button>
      <Button
        variant="default"
        leftSection={<IconClose size={16} />}
        loading={busy('reject')}
        disabled={act.isPending}
        onClick={() => act.mutate('reject')}
      >
        Reject
      </Button>
    </form>
  )
}

function Question({ approval, now }: { approval: Approval; now: number }): ReactNode {
  const waits = approval.status === 'pending'
  return (
    <li className="panel approval" aria-label={approval.message}>
      <p className="approval-message">{approval.message}</p>
      {approval.data === null ? null : (
        <pre className="code" tabIndex={0} aria-label="Data">
          {JSON.stringify(approval.data, null, 2)}
        </pre>
      )}
      <p className="approval-facts soft small">
        {waits ? null : <Status value={approval.status} />}
        <Link to="/runs/$runId" params={{ runId: approval.run_id }} className="link">
          Step {approval.step}
        </Link>
        <time dateTime={approval.requested_at} title={approval.requested_at}>
          asked {ago(approval.requested_at, now)}
        </time>
        {waits && approval.expires_at ? (
          <span title={approval.expires_at}>{endsIn(approval.expires_at, now)}</span>
        ) : null}
        <span>{whoMay(approval)}</span>
        {approval.four_eyes ? <Chip title="Not by who started the run">four eyes</Chip> : null}
      </p>
      {approval.decided_at ? (
        <p className="approval-facts small">
          <span>
            {ago(approval.decided_at, now)}
            {approval.decided_by ? ` by ${approval.decided_by}` : ''}
            {approval.comment ? `: ${approval.comment}` : ''}
          </span>
        </p>
      ) : null}
      {waits ? <Decide approval={approval} /> : null}
    </li>
  )
}

/** What workflows ask people, the waiting questions first, each with its answer or the buttons for one. */
export default function Approvals(): ReactNode {
  useTitle('Approvals')
  const { status } = route.useSearch()
  const navigate = useNavigate()
  const shown = status ?? 'pending'
  const approvals = useInfiniteQuery(approvalPagesQuery(shown))
  const rows = approvals.data?.pages.flatMap((page) => page.data) ?? []
  const now = useNow(rows.length > 0)
  const set = (value: ApprovalStatus | null): void =>
    void navigate({ to: '/approvals', search: value && value !== 'pending' ? { status: value } : {}, replace: true })
  return (
    <div className="page">
      <PageHead title="Approvals" about="What workflows ask people. Each question is answered once.">
        <Select
          aria-label="Status"
          data={APPROVAL_STATUSES as unknown as string[]}
          value={shown}
          onChange={(value) => set(value as ApprovalStatus | null)}
          allowDeselect={false}
          w={148}
          size="sm"
        />
      </PageHead>
      {approvals.isError ? <Trouble error={approvals.error} retry={() => void approvals.refetch()} /> : null}
      {approvals.isPending ? <Skeleton height={180} radius={12} aria-label="Loading" /> : null}
      {approvals.isSuccess && rows.length === 0 ? (
        <section className="panel" aria-label="Approvals">
          <Empty icon={IconApprovals} title={shown === 'pending' ? 'Nothing waits for an answer' : `None is ${shown}`}>
            A step <span className="mono">approval</span> of a workflow asks here.
          </Empty>
        </section>
      ) : null}
      <ul className="approvals">
        {rows.map((approval) => (
          <Question key={approval.id} approval={approval} now={now} />
        ))}
      </ul>
      {approvals.hasNextPage ? (
        <Button
          variant="default"
          mt="md"
          mx="auto"
          display="block"
          loading={approvals.isFetchingNextPage}
          onClick={() => void approvals.fetchNextPage()}
        >
          Older questions
        </Button>
      ) : null}
    </div>
  )
}
