import { useSyncExternalStore } from 'react'
import type { AlignedData } from 'uplot'
import { api, data } from '../api/client'
import { live } from '../api/live'
import { Ring } from '../api/ring'
import type { Page, Sample } from '../api/types'

/** What each column of the ring holds. */
const COLUMNS = {
  time: (each: Sample) => each.ts,
  cpu: (each: Sample) => each.cpu.percent,
  memory: (each: Sample) => each.memory.percent,
  received: (each: Sample) => each.network.receive_rate,
  sent: (each: Sample) => each.network.send_rate,
  read: (each: Sample) => each.disk.read_rate,
  written: (each: Sample) => each.disk.write_rate,
  gpu: (each: Sample) => each.gpu.devices[0]?.utilization,
  gpuMemory: (each: Sample) => {
    const device = each.gpu.devices[0]
    return device?.memory_used != null && device.memory_total ? (100 * device.memory_used) / device.memory_total : null
  },
  requests: (each: Sample) => each.requests?.per_second,
  p50: (each: Sample) => each.requests?.p50_ms,
  p95: (each: Sample) => each.requests?.p95_ms,
} satisfies Record<string, (each: Sample) => number | null | undefined>

export type Column = keyof typeof COLUMNS
const NAMES = Object.keys(COLUMNS) as Column[]
const READERS = Object.values(COLUMNS)

/** At most this many points are kept, so that a page left open for days stays small. */
export const KEPT = 600

/** The machine over the last minutes: filled once from the server's own ring, then from the live stream. */
class Samples {
  private readonly ring = new Ring(NAMES.length, KEPT)
  private last: Sample | null = null
  private readonly watchers = new Set<() => void>()
  private filling: Promise<void> | null = null

  constructor() {
    live.on('system', (event) => this.add([event as Sample]))
  }

  /** Loads what the server remembers; a second call while the first runs does nothing. */
  fill(): Promise<void> {
    this.filling ??= data<Page<Sample>>(api.GET('/api/v1/system/metrics', { params: { query: { limit: KEPT } } }))
      .then((answer) => this.add(answer.data))
      .catch(() => undefined)
      .finally(() => {
        this.filling = null
      })
    return this.filling
  }

  /** Takes samples, oldest first; older ones than those held are dropped. */
  add(samples: readonly Sample[]): void {
    let changed = false
    for (const sample of samples) {
      if (!this.ring.push(READERS.map((read) => read(sample)))) continue
      this.last = sample
      changed = true
    }
    if (changed) this.watchers.forEach((watcher) => watcher())
  }

  readonly watch = (watcher: () => void): (() => void) => {
    this.watchers.add(watcher)
    return () => this.watchers.delete(watcher)
  }

  readonly newest = (): Sample | null => this.last

  /** The times in seconds and the named columns, as uPlot wants them. */
  columns(names: readonly Column[]): AlignedData {
    const times = this.ring.column(0).map((time) => time ?? 0)
    return [times, ...names.map((name) => this.ring.column(NAMES.indexOf(name)))]
  }

  /** A function for `Chart.subscribe` that draws the named columns. */
  feed(...names: Column[]): (draw: (columns: AlignedData) => void) => () => void {
    return (draw) => {
      const update = (): void => draw(this.columns(names))
      update()
      return this.watch(update)
    }
  }
}

export const samples = new Samples()

/** The newest sample of the machine. */
export function useSample(): Sample | null {
  return useSyncExternalStore(samples.watch, samples.newest)
}
