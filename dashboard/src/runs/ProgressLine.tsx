import type { ReactNode } from 'react'
import type { Progress } from '../api/types'
import { progressWords } from './progress'

/** A thin bar with its words. */
export function ProgressLine({ progress }: { progress: Progress | null | undefined }): ReactNode {
  if (!progress) return null
  const percent = progress.total ? Math.min(100, (100 * progress.done) / progress.total) : null
  return (
    <span className="progress">
      <span
        className="progress-bar"
        role="progressbar"
        aria-label="Progress"
        aria-valuenow={percent == null ? undefined : Math.round(percent)}
        aria-valuemin={0}
        aria-valuemax={100}
        data-open={percent == null}
      >
        <span style={{ width: `${percent ?? 30}%` }} />
      </span>
      <span className="numbers">{progressWords(progress)}</span>
    </span>
  )
}
