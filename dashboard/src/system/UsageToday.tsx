import { useQuery } from '@tanstack/react-query'
import type { ReactNode } from 'react'
import type { UsageRow } from '../api/types'
import { count, milliseconds, money, share } from '../ui/format'
import { IconChat } from '../ui/icons'
import { ButtonLink } from '../ui/links'
import { Trouble } from '../ui/trouble'
import { Empty, Panel } from '../ui/words'
import { usageQuery } from './queries'

export interface Sums {
  requests: number
  errors: number
  input: number
  output: number
  cost: number
  /** Mean latency in milliseconds, null without requests. */
  latency: number | null
}

/** All groups together. */
export function sumsOf(rows: readonly UsageRow[]): Sums {
  const sum = (name: 'requests' | 'errors' | 'input_tokens' | 'output_tokens' | 'cost_usd'): number =>
    rows.reduce((all, row) => all + (row[name] ?? 0), 0)
  const requests = sum('requests')
  const timed = rows.filter((row) => row.latency_ms != null)
  const weight = timed.reduce((all, row) => all + (row.requests ?? 0), 0)
  return {
    requests,
    errors: sum('errors'),
    input: sum('input_tokens'),
    output: sum('output_tokens'),
    cost: sum('cost_usd'),
    latency:
      weight > 0 ? timed.reduce((all, row) => all + (row.latency_ms ?? 0) * (row.requests ?? 0), 0) / weight : null,
  }
}

function Sum({ name, children }: { name: string; children: ReactNode }): ReactNode {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  )
}

/** Calls, tokens and cost since midnight, by model. */
export function UsageToday(): ReactNode {
  const usage = useQuery(usageQuery)
  const all = usage.data?.data ?? []
  const rows = [...all].sort((one, two) => (two.requests ?? 0) - (one.requests ?? 0)).slice(0, 5)
  const sums = sumsOf(all)
  const most = Math.max(1, ...rows.map((row) => row.requests ?? 0))
  return (
    <Panel
      title="Usage today"
      className="third"
      aside={rows.length > 0 ? <span className="soft small numbers">{money(sums.cost)}</span> : null}
      body={false}
    >
      {usage.isError ? <Trouble error={usage.error} retry={() => void usage.refetch()} /> : null}
      {usage.isSuccess && rows.length === 0 ? (
        <Empty
          icon={IconChat}
          title="No calls today"
          action={
            <ButtonLink to="/chat" variant="default" size="xs">
              Try the chat
            </ButtonLink>
          }
        >
          Calls of every kind are counted here, with their tokens and their cost.
        </Empty>
      ) : null}
      {rows.length > 0 ? (
        <>
          <dl className="sums numbers">
            <Sum name="Calls">{count(sums.requests, true)}</Sum>
            <Sum name="Errors">{share(sums.requests ? sums.errors / sums.requests : 0)}</Sum>
            <Sum name="Mean latency">{milliseconds(sums.latency)}</Sum>
            <Sum name="Tokens in">{count(sums.input, true)}</Sum>
            <Sum name="Tokens out">{count(sums.output, true)}</Sum>
          </dl>
          <ul className="bars numbers">
            {rows.map((row) => (
              <li key={String(row['model'])}>
                <span className="bars-fill" style={{ width: `${(100 * (row.requests ?? 0)) / most}%` }} aria-hidden />
                <span className="cut">{row['model'] ?? 'none'}</span>
                <span className="soft small bars-end">
                  {count(row.requests, true)}
                  {row.cost_usd ? ` · ${money(row.cost_usd)}` : ''}
                </span>
              </li>
            ))}
          </ul>
        </>
      ) : null}
    </Panel>
  )
}
