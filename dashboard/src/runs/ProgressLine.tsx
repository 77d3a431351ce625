import type { ReactNode } from 'react'
import type { Progress } from '../api/types'
import { bytes } from '../ui/format'

/** Progress as words: "12 of 40 trials". */
export function progressWords(progress: Progress | null | undefined): string {
  if (!progress) return ''
  const show = (value: number): string => (progress.unit === 'bytes' ? bytes(value) : String(Math.round(value)))
  const unit = progress.unit === 'bytes' ? '' : ` ${progress.unit}`
  return progress.total == null ? `${show(progress.done)}${unit}` : `${show(progress.done)} of ${show(progress.total)}${unit}`
}

/** A thin bar with its words. */
export function ProgressLine({ progress }: { progress: Progress | null | undefined }): ReactNode {
  if (!progress) return null
  const percent = progress.total ? Math.min(100, (100 * progress.done) / progress.total) : null
  return (
    <span className="progress">
      <span className="progress-bar" role="progressbar" aria-label="Progress" aria-valuenow={percent == null ? undefined : Math.round(percent)} aria-valuemin={0} aria-valuemax={100} data-open={percent == null}>
        <span style={{ width: `${percent ?? 30}%` }} />
      </span>
      <span className="numbers">{progressWords(progress)}</span>
    </span>
  )
}
