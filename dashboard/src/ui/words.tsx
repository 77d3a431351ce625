import type { ReactNode } from 'react'
import type { Icon } from './icons'

export type Tone = 'good' | 'warn' | 'bad' | 'busy' | 'idle'

const TONES: Record<string, Tone> = {
  ok: 'good',
  healthy: 'good',
  ready: 'good',
  loaded: 'good',
  succeeded: 'good',
  approved: 'good',
  running: 'busy',
  loading: 'busy',
  pulling: 'busy',
  waiting: 'warn',
  expired: 'warn',
  degraded: 'warn',
  draining: 'warn',
  failing: 'bad',
  retrying: 'warn',
  failed: 'bad',
  rejected: 'bad',
  error: 'bad',
  down: 'bad',
  unhealthy: 'bad',
}

/** The colour that a status of the API stands for. */
export function toneOf(status: string): Tone {
  return TONES[status] ?? 'idle'
}

/** A status as a coloured dot and the word itself, so that it never hangs on colour alone. */
export function Status({ value, label }: { value: string; label?: string }): ReactNode {
  return (
    <span className="status">
      <span className="dot" data-tone={toneOf(value)} aria-hidden />
      {label ?? value}
    </span>
  )
}

export function Chip({
  children,
  tone,
  title,
}: {
  children: ReactNode
  tone?: 'brand' | 'warn'
  title?: string
}): ReactNode {
  return (
    <span className="chip" data-tone={tone} title={title}>
      {children}
    </span>
  )
}

/** The head of a page: its h1, one line about it, and its actions. */
export function PageHead({
  title,
  about,
  children,
}: {
  title: ReactNode
  about?: ReactNode
  children?: ReactNode
}): ReactNode {
  return (
    <header className="head">
      <div className="head-words">
        <h1>{title}</h1>
        {about ? <p>{about}</p> : null}
      </div>
      {children}
    </header>
  )
}

/** What stands where there is nothing yet: why, and what to do next. */
export function Empty({
  icon: Drawn,
  title,
  children,
  action,
}: {
  icon: Icon
  title: string
  children?: ReactNode
  action?: ReactNode
}): ReactNode {
  return (
    <div className="empty">
      <span className="empty-icon">
        <Drawn size={22} />
      </span>
      <h2>{title}</h2>
      {children ? <p>{children}</p> : null}
      {action}
    </div>
  )
}

export function Panel({
  title,
  aside,
  className,
  children,
  body = true,
}: {
  title?: ReactNode
  aside?: ReactNode
  className?: string
  children: ReactNode
  body?: boolean
}): ReactNode {
  return (
    <section className={`panel ${className ?? ''}`}>
      {title ? (
        <div className="panel-head">
          <h2>{title}</h2>
          <span style={{ flex: 1 }} />
          {aside}
        </div>
      ) : null}
      {body ? <div className="panel-body">{children}</div> : children}
    </section>
  )
}
