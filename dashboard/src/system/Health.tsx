import { Skeleton } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import type { ReactNode } from 'react'
import { words } from '../ui/format'
import { Trouble } from '../ui/trouble'
import { Panel, Status, toneOf } from '../ui/words'
import { healthQuery } from './queries'

/** The state of every part of the server. */
export function Health(): ReactNode {
  const health = useQuery(healthQuery)
  const parts = health.data?.components ?? []
  const troubled = parts.filter((part) => toneOf(part.status) !== 'good')
  const whole =
    parts.length === 0 ? null : troubled.length === 0 ? (
      <Status value="ok" label="All well" />
    ) : (
      <Status
        value={troubled.some((part) => toneOf(part.status) === 'bad') ? 'failed' : 'degraded'}
        label={`${troubled.length} of ${parts.length} need a look`}
      />
    )
  return (
    <Panel title="Health" aside={whole} className="third" body={false}>
      {health.isError ? <Trouble error={health.error} retry={() => void health.refetch()} /> : null}
      {health.isPending ? (
        <div className="panel-body">
          <Skeleton height={190} />
        </div>
      ) : null}
      {parts.length > 0 ? (
        <ul className="rows">
          {parts.map((part) => (
            <li key={part.name}>
              <span className="dot" data-tone={toneOf(part.status)} aria-hidden />
              <span className="rows-name">{words(part.name)}</span>
              <span className="soft small cut" title={part.detail ?? ''}>
                {part.detail}
              </span>
              <span className="small rows-end">{part.status}</span>
            </li>
          ))}
        </ul>
      ) : null}
    </Panel>
  )
}
