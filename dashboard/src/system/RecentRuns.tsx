import { Skeleton } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { Link } from '@tanstack/react-router'
import type { ReactNode } from 'react'
import { useNow } from '../ui/clock'
import { ago } from '../ui/format'
import { IconRuns } from '../ui/icons'
import { Empty, Panel, toneOf } from '../ui/words'
import { runsQuery } from '../runs/queries'
import { ProgressLine } from '../runs/ProgressLine'
import { ButtonLink } from '../ui/links'

/** The newest runs. */
export function RecentRuns(): ReactNode {
  const runs = useQuery(runsQuery({ limit: 6 }))
  const now = useNow()
  const rows = runs.data?.data ?? []
  return (
    <Panel
      title="Recent runs"
      aside={
        <Link to="/runs" className="link small">
          All runs
        </Link>
      }
      className="third"
      body={false}
    >
      {runs.isPending ? (
        <div className="panel-body">
          <Skeleton height={190} />
        </div>
      ) : null}
      {runs.isSuccess && rows.length === 0 ? (
        <Empty
          icon={IconRuns}
          title="No runs yet"
          action={
            <ButtonLink to="/models" variant="default" size="xs">
              Pull a model
            </ButtonLink>
          }
        >
          Training, model pulls, batches and workflows show up here.
        </Empty>
      ) : null}
      <ul className="rows">
        {rows.map((run) => (
          <li key={run.id}>
            <span className="dot" data-tone={toneOf(run.status)} aria-hidden />
            <Link to="/runs/$runId" params={{ runId: run.id }} className="link rows-name cut">
              {run.name}
            </Link>
            <span className="small rows-end soft numbers">
              {run.status === 'running' ? (
                <ProgressLine progress={run.progress} />
              ) : (
                `${run.status} ${ago(run.finished_at ?? run.created_at, now)}`
              )}
            </span>
          </li>
        ))}
      </ul>
    </Panel>
  )
}
