import type { Progress } from '../api/types'
import { bytes } from '../ui/format'

/** Progress as words: "12 of 40 trials". */
export function progressWords(progress: Progress | null | undefined): string {
  if (!progress) return ''
  const show = (value: number): string => (progress.unit === 'bytes' ? bytes(value) : String(Math.round(value)))
  const unit = progress.unit === 'bytes' ? '' : ` ${progress.unit}`
  return progress.total == null
    ? `${show(progress.done)}${unit}`
    : `${show(progress.done)} of ${show(progress.total)}${unit}`
}
