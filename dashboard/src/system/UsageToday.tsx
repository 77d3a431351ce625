import { useQuery } from '@tanstack/react-query'
import type { ReactNode } from 'react'
import { count, milliseconds, money, share } from '../ui/format'
import { IconChat } from '../ui/icons'
import { Empty, Panel } from '../ui/words'
import { usageQuery } from './queries'
import { ButtonLink } from '../ui/links'

/** Calls, tokens and cost since midnight, by model. */
export function UsageToday(): ReactNode {
  const usage = useQuery(usageQuery('model'))
  const rows = [...(usage.data?.data ?? [])].sort((one, two) => two.calls - one.calls).slice(0, 6)
  const total = usage.data?.totals
  const most = Math.max(1, ...rows.map((row) => row.calls))
  return (
    <Panel title="Usage today" className="half" aside={total ? <span className="soft small numbers">{money(total.cost_usd)}</span> : null} body={false}>
      {usage.isSuccess && rows.length === 0 ? (
        <Empty icon={IconChat} title="No calls today" action={<ButtonLink to="/chat" variant="default" size="xs">Try the chat</ButtonLink>}>
          Calls of every kind are counted here by model, with their tokens and what they cost.
        </Empty>
      ) : null}
      {total && rows.length > 0 ? (
        <>
          <dl className="sums numbers">
            <div>
              <dt>Calls</dt>
              <dd>{count(total.calls, true)}</dd>
            </div>
            <div>
              <dt>Tokens in / out</dt>
              <dd>
                {count(total.input_tokens, true)} / {count(total.output_tokens, true)}
              </dd>
            </div>
            <div>
              <dt>Errors</dt>
              <dd>{share(total.calls ? total.errors / total.calls : 0)}</dd>
            </div>
            <div>
              <dt>p95</dt>
              <dd>{milliseconds(total.latency_ms_p95)}</dd>
            </div>
          </dl>
          <ul className="bars numbers">
            {rows.map((row) => (
              <li key={row.key}>
                <span className="bars-fill" style={{ width: `${(100 * row.calls) / most}%` }} aria-hidden />
                <span className="cut">{row.key}</span>
                <span className="soft small">
                  {count(row.calls)} {row.calls === 1 ? 'call' : 'calls'} · {money(row.cost_usd)}
                </span>
              </li>
            ))}
          </ul>
        </>
      ) : null}
    </Panel>
  )
}
