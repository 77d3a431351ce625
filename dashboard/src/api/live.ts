import { useSyncExternalStore } from 'react'
import { address } from './place'

export type LiveState = 'connecting' | 'live' | 'reconnecting' | 'paused'
type Listener = (data: unknown) => void

const SILENCE = 12_000

/**
 * The one live stream of the dashboard: `GET /api/v1/events?topics=...` as server-sent events.
 * It is closed while the page is hidden, and opened anew when it has been silent for too long.
 */
class Live {
  private source: EventSource | null = null
  private state: LiveState = 'connecting'
  private wanted = false
  private lastHeard = 0
  private timer = 0
  private readonly watchers = new Set<() => void>()
  private readonly listeners = new Map<string, Set<Listener>>()

  /** Opens the stream; the returned function closes it. */
  start(): () => void {
    this.wanted = true
    this.open()
    document.addEventListener('visibilitychange', this.onVisibility)
    this.timer = window.setInterval(() => {
      if (this.source && Date.now() - this.lastHeard > SILENCE) this.open('reconnecting')
    }, 4000)
    return () => {
      this.wanted = false
      window.clearInterval(this.timer)
      document.removeEventListener('visibilitychange', this.onVisibility)
      this.close()
    }
  }

  /** Calls `listener` with the data of each event of that name. */
  on(event: string, listener: Listener): () => void {
    const group = this.listeners.get(event) ?? new Set()
    this.listeners.set(event, group)
    group.add(listener)
    if (group.size === 1) this.source?.addEventListener(event, this.deliver)
    return () => {
      group.delete(listener)
      if (group.size === 0) {
        this.listeners.delete(event)
        this.source?.removeEventListener(event, this.deliver)
      }
    }
  }

  readonly watch = (watcher: () => void): (() => void) => {
    this.watchers.add(watcher)
    return () => this.watchers.delete(watcher)
  }

  readonly current = (): LiveState => this.state

  private open(state: LiveState = this.state === 'live' ? 'reconnecting' : this.state): void {
    this.close()
    this.become(state === 'paused' ? 'reconnecting' : state)
    this.lastHeard = Date.now()
    const source = new EventSource(address('/api/v1/events?topics=system,runs,models'), { withCredentials: true })
    source.onopen = () => {
      this.lastHeard = Date.now()
      this.become('live')
    }
    source.onerror = () => this.become('reconnecting')
    for (const event of this.listeners.keys()) source.addEventListener(event, this.deliver)
    this.source = source
  }

  private close(): void {
    this.source?.close()
    this.source = null
  }

  private readonly deliver = (message: MessageEvent<string>): void => {
    this.lastHeard = Date.now()
    let data: unknown
    try {
      data = JSON.parse(message.data)
    } catch {
      return
    }
    this.listeners.get(message.type)?.forEach((listener) => listener(data))
  }

  private readonly onVisibility = (): void => {
    if (!this.wanted) return
    if (document.hidden) {
      this.close()
      this.become('paused')
    } else {
      this.open('connecting')
    }
  }

  private become(state: LiveState): void {
    if (state === this.state) return
    this.state = state
    this.watchers.forEach((watcher) => watcher())
  }
}

export const live = new Live()

/** Whether live data arrives just now. */
export function useLiveState(): LiveState {
  return useSyncExternalStore(live.watch, live.current)
}
