import { Collapse } from '@mantine/core'
import { useState, type ReactNode } from 'react'
import type { Run, StepRun } from '../api/types'
import { between, duration } from '../ui/format'
import { CopyButton } from '../ui/CopyButton'
import { IconChevron } from '../ui/icons'
import { Status, toneOf } from '../ui/words'
import { progressWords } from './progress'
import { barOf, time } from './timeline_bar'

function Json({ name, value }: { name: string; value: unknown }): ReactNode {
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2)
  return (
    <div className="json">
      <div className="json-head">
        <span className="small soft">{name}</span>
        <CopyButton text={text} label={`Copy the ${name.toLowerCase()}`} />
      </div>
      <pre className="code" tabIndex={0} aria-label={name}>
        {text.length > 20_000 ? `${text.slice(0, 20_000)}\n…` : text}
      </pre>
    </div>
  )
}

function Step({ step, from, to, now }: { step: StepRun; from: number; to: number; now: number }): ReactNode {
  const [open, setOpen] = useState(step.status === 'failed')
  const bar = barOf(step, from, to, now)
  const body = step.output != null || step.error != null
  return (
    <li>
      <button
        type="button"
        className="step"
        aria-expanded={body ? open : undefined}
        disabled={!body}
        onClick={() => setOpen(!open)}
      >
        <IconChevron
          size={15}
          className="step-arrow"
          data-open={open}
          style={{ visibility: body ? 'visible' : 'hidden' }}
        />
        <span className="step-name">
          <b className="cut">{step.key}</b>
          <span className="mono soft cut">{step.uses}</span>
        </span>
        <span className="step-status">
          <Status value={step.status} />
          {step.attempts > 1 ? <span className="soft small">{step.attempts} attempts</span> : null}
        </span>
        <span className="step-track wide" aria-hidden>
          {bar ? (
            <span
              data-tone={toneOf(step.status)}
              style={{ left: `${bar.left * 100}%`, width: `${bar.width * 100}%` }}
            />
          ) : null}
        </span>
        <span className="step-time soft small numbers">
          {step.progress && step.status === 'running'
            ? progressWords(step.progress)
            : duration(between(step.started_at, step.finished_at, now))}
        </span>
      </button>
      <Collapse expanded={open && body}>
        <div className="step-body">
          {step.error != null ? <Json name="Error" value={step.error} /> : null}
          {step.output != null ? <Json name="Output" value={step.output} /> : null}
        </div>
      </Collapse>
    </li>
  )
}

/** The steps of a run over time; each opens to what it gave or why it failed. */
export function Timeline({ run, now }: { run: Run; now: number }): ReactNode {
  const from = time(run.started_at ?? run.created_at)
  const to = run.finished_at ? time(run.finished_at) : now
  return (
    <ol className="steps">
      {(run.steps ?? []).map((step) => (
        <Step key={step.key} step={step} from={from} to={to} now={now} />
      ))}
    </ol>
  )
}
