import type { Stats } from './types'

/** Measures one answer as it streams: time to the first token, tokens a second. Times in milliseconds. */
export class Meter {
  private readonly started: number
  private first: number | null = null
  private pieces = 0
  private usage: { input: number; output: number } | null = null

  constructor(now: number) {
    this.started = now
  }

  /** Text arrived. */
  piece(now: number): void {
    this.first ??= now
    this.pieces += 1
  }

  /** The model said how many tokens there were. */
  counted(usage: { input: number; output: number }): void {
    this.usage = usage
  }

  stats(now: number): Stats {
    const output = this.usage?.output ?? (this.pieces || null)
    const seconds = this.first === null ? 0 : (now - this.first) / 1000
    return {
      firstToken: this.first === null ? null : this.first - this.started,
      total: now - this.started,
      inputTokens: this.usage?.input ?? null,
      outputTokens: output,
      speed: output !== null && output > 1 && seconds > 0.05 ? (output - 1) / seconds : null,
      estimated: this.usage === null,
    }
  }
}
