import { useQuery } from '@tanstack/react-query'
import { useMemo, type ReactNode } from 'react'
import { bytes, duration, milliseconds, share } from '../ui/format'
import { Chart, type Series } from '../ui/Chart'
import { useTitle } from '../ui/title'
import { PageHead, Panel } from '../ui/words'
import { Figures } from './Figures'
import { Health } from './Health'
import { infoQuery } from './queries'
import { RecentRuns } from './RecentRuns'
import { samples, useSample, type Column } from './samples'
import { UsageToday } from './UsageToday'
import './overview.css'

const SPAN = 300
const percent = (value: number): string => `${Math.round(value)} %`
const rate = (value: number): string => `${bytes(value)}/s`

const LOAD: readonly Series[] = [
  { label: 'CPU', color: '--series-1', fill: true },
  { label: 'Memory', color: '--series-2' },
]
const LOAD_GPU: readonly Series[] = [...LOAD, { label: 'GPU', color: '--series-3' }]
const SPEED: readonly Series[] = [
  { label: 'p50', color: '--series-1', fill: true },
  { label: 'p95', color: '--series-3' },
]
const FLOW: readonly Series[] = [
  { label: 'Received', color: '--series-2', fill: true },
  { label: 'Sent', color: '--series-4' },
]
const RATE: readonly Series[] = [{ label: 'Requests', color: '--series-1', fill: true }]

function Legend({ series }: { series: readonly Series[] }): ReactNode {
  return (
    <span className="legend">
      {series.map((each) => (
        <span key={each.label}>
          <i style={{ background: `var(${each.color})` }} aria-hidden />
          {each.label}
        </span>
      ))}
    </span>
  )
}

interface LiveChartProps {
  title: string
  label: string
  series: readonly Series[]
  columns: readonly Column[]
  format: (value: number) => string
  max?: number
  className?: string
}

function LiveChart({ title, label, series, columns, format, max, className = 'half' }: LiveChartProps): ReactNode {
  const feed = useMemo(() => samples.feed(...columns), [columns])
  return (
    <Panel title={title} aside={<Legend series={series} />} className={className} body={false}>
      <div className="chart-box">
        <Chart
          label={label}
          series={series}
          subscribe={feed}
          format={format}
          span={SPAN}
          {...(max === undefined ? {} : { max })}
        />
      </div>
    </Panel>
  )
}

const LOAD_COLUMNS: readonly Column[] = ['cpu', 'memory']
const LOAD_GPU_COLUMNS: readonly Column[] = ['cpu', 'memory', 'gpu']
const SPEED_COLUMNS: readonly Column[] = ['p50', 'p95']
const RATE_COLUMNS: readonly Column[] = ['requests']
const FLOW_COLUMNS: readonly Column[] = ['received', 'sent']

function Requests(): ReactNode {
  const now = useSample()?.requests
  if (!now)
    return (
      <LiveChart
        title="Network"
        label="Bytes received and sent over the last five minutes"
        series={FLOW}
        columns={FLOW_COLUMNS}
        format={rate}
      />
    )
  return (
    <>
      <LiveChart
        title="Latency"
        label="Median and 95th percentile of the latency over the last five minutes"
        series={SPEED}
        columns={SPEED_COLUMNS}
        format={milliseconds}
      />
      <Panel
        title="Requests"
        className="half"
        aside={
          <span className="soft small numbers">
            {now.in_flight} in flight · {share(now.error_ratio)} errors
          </span>
        }
        body={false}
      >
        <RequestRate />
      </Panel>
      <LiveChart
        title="Network"
        label="Bytes received and sent over the last five minutes"
        series={FLOW}
        columns={FLOW_COLUMNS}
        format={rate}
      />
    </>
  )
}

function RequestRate(): ReactNode {
  const feed = useMemo(() => samples.feed(...RATE_COLUMNS), [])
  return (
    <div className="chart-box">
      <Chart
        label="Requests per second over the last five minutes"
        series={RATE}
        subscribe={feed}
        format={(value) => `${Number.isInteger(value) || value >= 10 ? Math.round(value) : value.toFixed(1)}/s`}
        span={SPAN}
      />
    </div>
  )
}

/** The first page: is everything well, how loaded is the machine, what happened last. */
export default function Overview(): ReactNode {
  useTitle('Overview')
  const info = useQuery(infoQuery)
  const gpu = useSample()?.gpu.state === 'ok'
  const about = info.data
    ? `NEXUS ${info.data.version}, up for ${duration(info.data.uptime_s)}`
    : 'Health, load and what happened last'
  return (
    <div className="page">
      <PageHead title="Overview" about={about} />
      <div className="grid">
        <Figures />
        <LiveChart
          title="Load"
          label="CPU, memory and GPU over the last five minutes"
          series={gpu ? LOAD_GPU : LOAD}
          columns={gpu ? LOAD_GPU_COLUMNS : LOAD_COLUMNS}
          format={percent}
          max={100}
          key={String(gpu)}
        />
        <Requests />
        <Health />
        <RecentRuns />
        <UsageToday />
      </div>
    </div>
  )
}
