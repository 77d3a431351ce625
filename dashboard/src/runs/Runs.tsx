import { Button, Select, Skeleton } from '@mantine/core'
import { useInfiniteQuery } from '@tanstack/react-query'
import { getRouteApi, Link, useNavigate } from '@tanstack/react-router'
import type { ReactNode } from 'react'
import { RUN_STATUSES, type Run, type RunStatus } from '../api/types'
import { useNow } from '../ui/clock'
import { ago, between, duration, words } from '../ui/format'
import { IconRuns } from '../ui/icons'
import { useTitle } from '../ui/title'
import { Trouble } from '../ui/trouble'
import { Empty, PageHead, Status } from '../ui/words'
import { ProgressLine } from './ProgressLine'
import { runPagesQuery } from './queries'
import { ButtonLink } from '../ui/links'
import './runs.css'

const route = getRouteApi('/runs')
const KINDS = ['workflow', 'training', 'model_pull']

function Row({ run, now }: { run: Run; now: number }): ReactNode {
  const navigate = useNavigate()
  const open = (): void => void navigate({ to: '/runs/$runId', params: { runId: run.id } })
  const active = run.status === 'running' || run.status === 'waiting'
  return (
    <tr data-open onClick={open}>
      <td>
        <Link to="/runs/$runId" params={{ runId: run.id }} onClick={(event) => event.stopPropagation()}>
          {run.name}
        </Link>
        {run.version ? <span className="soft small"> v{run.version}</span> : null}
        <div className="soft small narrow">
          {words(run.kind)}, {ago(run.created_at, now)}
        </div>
      </td>
      <td className="soft wide">{words(run.kind)}</td>
      <td>
        <Status value={run.status} />
        {active ? (
          <div className="narrow">
            <ProgressLine progress={run.progress} />
          </div>
        ) : null}
      </td>
      <td className="wide">
        {active ? (
          <ProgressLine progress={run.progress} />
        ) : run.error ? (
          <span className="cut soft error-words">{run.error.message}</span>
        ) : null}
      </td>
      <td className="wide numbers soft">{duration(between(run.started_at, run.finished_at, now))}</td>
      <td className="right numbers soft wide">
        <time dateTime={run.created_at} title={run.created_at}>
          {ago(run.created_at, now)}
        </time>
      </td>
    </tr>
  )
}

/** All runs, newest first, with filters that live in the address. */
export default function Runs(): ReactNode {
  useTitle('Runs')
  const filter = route.useSearch()
  const navigate = useNavigate()
  const runs = useInfiniteQuery(runPagesQuery(filter))
  const rows = runs.data?.pages.flatMap((page) => page.data) ?? []
  const now = useNow(rows.some((run) => run.status === 'running') || rows.length > 0)
  const set = (change: typeof filter): void =>
    void navigate({ to: '/runs', search: { ...filter, ...change }, replace: true })
  const kinds = [...new Set([...KINDS, ...rows.map((run) => run.kind), ...(filter.kind ? [filter.kind] : [])])]
  const filtered = Boolean(filter.status || filter.kind)
  return (
    <div className="page">
      <PageHead title="Runs" about="Durable work: training, pulls, batches and workflows. A crash loses nothing.">
        <Select
          aria-label="Status"
          placeholder="Any status"
          data={RUN_STATUSES as unknown as string[]}
          value={filter.status ?? null}
          onChange={(status) => set({ status: (status as RunStatus | null) ?? undefined })}
          clearable
          w={148}
          size="sm"
          clearButtonProps={{ 'aria-label': 'Any status' }}
        />
        <Select
          aria-label="Kind"
          placeholder="Any kind"
          data={kinds.map((kind) => ({ value: kind, label: words(kind) }))}
          value={filter.kind ?? null}
          onChange={(kind) => set({ kind: kind ?? undefined })}
          clearable
          w={148}
          size="sm"
          clearButtonProps={{ 'aria-label': 'Any kind' }}
        />
      </PageHead>
      <section className="panel" aria-label="Runs">
        {runs.isError ? <Trouble error={runs.error} retry={() => void runs.refetch()} /> : null}
        {runs.isPending ? (
          <div className="panel-body">
            <Skeleton height={420} />
          </div>
        ) : null}
        {runs.isSuccess && rows.length === 0 ? (
          <Empty
            icon={IconRuns}
            title={filtered ? 'No run fits these filters' : 'No runs yet'}
            action={
              filtered ? (
                <Button variant="default" onClick={() => set({ status: undefined, kind: undefined })}>
                  Clear the filters
                </Button>
              ) : (
                <ButtonLink to="/models">Pull a model</ButtonLink>
              )
            }
          >
            {filtered ? 'Other runs may be there.' : 'A pull, a training or a workflow starts the first one.'}
          </Empty>
        ) : null}
        {rows.length > 0 ? (
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col" className="wide">
                  Kind
                </th>
                <th scope="col">Status</th>
                <th scope="col" className="wide">
                  Progress
                </th>
                <th scope="col" className="wide">
                  Took
                </th>
                <th scope="col" className="right wide">
                  Created
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.map((run) => (
                <Row key={run.id} run={run} now={now} />
              ))}
            </tbody>
          </table>
        ) : null}
      </section>
      {runs.hasNextPage ? (
        <Button
          variant="default"
          mt="md"
          mx="auto"
          display="block"
          loading={runs.isFetchingNextPage}
          onClick={() => void runs.fetchNextPage()}
        >
          Older runs
        </Button>
      ) : null}
    </div>
  )
}
