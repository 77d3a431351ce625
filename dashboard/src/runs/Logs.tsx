import { useEffect, useRef, type ReactNode } from 'react'
import type { LogLine } from '../api/types'
import { CopyButton } from '../ui/CopyButton'
import { Panel } from '../ui/words'

const clock = (text: string): string =>
  new Date(text).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })

/** A run's log; it follows the newest line unless one has scrolled up. */
export function Logs({ lines, active }: { lines: readonly LogLine[]; active: boolean }): ReactNode {
  const box = useRef<HTMLDivElement>(null)
  const stuck = useRef(true)
  useEffect(() => {
    const element = box.current
    if (element && stuck.current) element.scrollTop = element.scrollHeight
  }, [lines])
  const text = (): string =>
    lines.map((line) => `${line.at} ${line.level} ${line.step ?? ''} ${line.message}`).join('\n')
  return (
    <Panel title="Log" aside={lines.length > 0 ? <CopyButton text={text} label="Copy the log" /> : null} body={false}>
      <div
        className="log"
        ref={box}
        tabIndex={0}
        role="log"
        aria-label="Log"
        aria-live="off"
        onScroll={({ currentTarget: element }) => {
          stuck.current = element.scrollHeight - element.scrollTop - element.clientHeight < 24
        }}
      >
        {lines.length === 0 ? (
          <p className="soft small">{active ? 'Nothing logged yet.' : 'This run has logged nothing.'}</p>
        ) : null}
        {lines.map((line) => (
          <div key={line.id} className="log-line" data-level={line.level}>
            <time dateTime={line.at}>{clock(line.at)}</time>
            <span className="log-step">{line.step}</span>
            <span>{line.message}</span>
          </div>
        ))}
      </div>
    </Panel>
  )
}
