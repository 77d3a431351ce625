import { useSyncExternalStore } from 'react'

let now = Date.now()
let timer = 0
const watchers = new Set<() => void>()

function watch(watcher: () => void): () => void {
  watchers.add(watcher)
  if (watchers.size === 1) {
    timer = window.setInterval(() => {
      now = Date.now()
      watchers.forEach((each) => each())
    }, 1000)
  }
  return () => {
    watchers.delete(watcher)
    if (watchers.size === 0) window.clearInterval(timer)
  }
}

const read = (): number => now
const still = (): number => now
const never = (): (() => void) => () => undefined

/** The present time in milliseconds, new each second; it stands still while `running` is false. */
export function useNow(running = true): number {
  return useSyncExternalStore(running ? watch : never, running ? read : still)
}
