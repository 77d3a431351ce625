import type { Model, Route } from '../api/types'

export type Verb = 'load' | 'unload' | 'pull'

/** What can be done with a model in this state. */
export function verbOf(state: string): Verb | null {
  if (state === 'loaded') return 'unload'
  if (state === 'available') return 'pull'
  if (state === 'ready' || state === 'failed') return 'load'
  return null
}

const STATES: Record<string, string> = { available: 'not pulled', loaded: 'in memory' }

/** A model's state as people say it. */
export function stateWords(state: string): string {
  return STATES[state] ?? state
}

/** The name by which one talks to this model, if one can. */
export function routeOf(model: Model, routes: readonly Route[]): Route | undefined {
  return routes.find(
    (route) =>
      route.task === 'chat' &&
      (route.name === model.name || route.deployments.some((each) => each.model === model.name)),
  )
}
