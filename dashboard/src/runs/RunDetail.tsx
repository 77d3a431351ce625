import { Alert, Button, Skeleton } from '@mantine/core'
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import { getRouteApi, Link } from '@tanstack/react-router'
import type { ReactNode } from 'react'
import { api, data } from '../api/client'
import type { Run } from '../api/types'
import { useNow } from '../ui/clock'
import { CopyButton } from '../ui/CopyButton'
import { ago, between, duration, words } from '../ui/format'
import { IconAlert, IconBack, IconRetry, IconStop } from '../ui/icons'
import { useTitle } from '../ui/title'
import { complain, tell } from '../ui/toast'
import { Trouble } from '../ui/trouble'
import { PageHead, Panel, Status } from '../ui/words'
import { Logs } from './Logs'
import { useLogs } from './logs'
import { progressWords } from './progress'
import { ProgressLine } from './ProgressLine'
import { runQuery, takeRun } from './queries'
import { Timeline } from './Timeline'
import './runs.css'

const route = getRouteApi('/runs/$runId')
const ACTIVE = new Set(['queued', 'running', 'waiting'])

function Actions({ run }: { run: Run }): ReactNode {
  const queries = useQueryClient()
  const path = { params: { path: { run_id: run.id } } }
  const act = useMutation({
    mutationFn: (verb: 'cancel' | 'retry') =>
      verb === 'cancel'
        ? data<Run>(api.POST('/api/v1/runs/{run_id}/cancel', path))
        : data<Run>(api.POST('/api/v1/runs/{run_id}/retry', path)),
    onSuccess: (fresh, verb) => {
      takeRun(queries, fresh)
      void queries.invalidateQueries({ queryKey: ['runs'] })
      void queries.invalidateQueries({ queryKey: ['run', run.id] })
      tell(verb === 'cancel' ? 'The run is being cancelled' : 'The run starts again')
    },
    onError: (error, verb) =>
      complain(`The run could not be ${verb === 'cancel' ? 'cancelled' : 'tried again'}`, error),
  })
  if (ACTIVE.has(run.status)) {
    return (
      <Button
        variant="default"
        leftSection={<IconStop size={15} />}
        loading={act.isPending}
        onClick={() => act.mutate('cancel')}
      >
        Cancel
      </Button>
    )
  }
  return run.status === 'failed' || run.status === 'cancelled' ? (
    <Button leftSection={<IconRetry size={16} />} loading={act.isPending} onClick={() => act.mutate('retry')}>
      Try again
    </Button>
  ) : null
}

function Facts({ run, now }: { run: Run; now: number }): ReactNode {
  return (
    <dl className="sums panel numbers">
      <div>
        <dt>Status</dt>
        <dd>
          <Status value={run.status} />
        </dd>
      </div>
      <div>
        <dt>Took</dt>
        <dd>{duration(between(run.started_at, run.finished_at, now))}</dd>
      </div>
      <div>
        <dt>Created</dt>
        <dd title={run.created_at}>{ago(run.created_at, now)}</dd>
      </div>
      <div>
        <dt>Progress</dt>
        <dd>
          {ACTIVE.has(run.status) ? <ProgressLine progress={run.progress} /> : progressWords(run.progress) || '–'}
        </dd>
      </div>
    </dl>
  )
}

/** One run: its steps over time, its log as it comes, its result. */
export default function RunDetail(): ReactNode {
  const { runId } = route.useParams()
  const query = useQuery({
    ...runQuery(runId),
    refetchInterval: ({ state }) => (state.data && ACTIVE.has(state.data.status) ? 5000 : false),
  })
  const run = query.data
  const active = run ? ACTIVE.has(run.status) : false
  const now = useNow(active)
  const lines = useLogs(runId)
  useTitle(run ? run.name : 'Run')
  if (query.isError) return <Trouble error={query.error} retry={() => void query.refetch()} />
  if (!run) return <Skeleton height={520} radius={12} className="page" aria-label="Loading" />
  const failure = run.error
  return (
    <div className="page">
      <Link to="/runs" className="link small soft back">
        <IconBack size={15} /> Runs
      </Link>
      <PageHead
        title={
          <>
            {run.name}
            {run.version ? <span className="soft"> v{run.version}</span> : null}
          </>
        }
        about={
          <span className="run-id">
            {words(run.kind)} · <span className="mono">{run.id}</span>{' '}
            <CopyButton text={run.id} label="Copy the run's id" size={22} />
          </span>
        }
      >
        <Actions run={run} />
      </PageHead>
      <div className="stack">
        {failure ? (
          <Alert color="red" icon={<IconAlert />} title={failure.message}>
            <span className="mono">
              {failure.step ? `${failure.step}: ` : ''}
              {failure.code}
            </span>
          </Alert>
        ) : null}
        <Facts run={run} now={now} />
        <Panel title="Steps" body={false}>
          <Timeline run={run} now={now} />
        </Panel>
        <Logs lines={lines} active={active} />
        {run.result && Object.keys(run.result).length > 0 ? (
          <Panel
            title="Result"
            aside={<CopyButton text={JSON.stringify(run.result, null, 2)} label="Copy the result" />}
          >
            <pre className="code" tabIndex={0} aria-label="Result">
              {JSON.stringify(run.result, null, 2)}
            </pre>
          </Panel>
        ) : null}
      </div>
    </div>
  )
}
