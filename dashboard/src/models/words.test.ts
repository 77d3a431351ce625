import { expect, test } from 'vitest'
import type { Model, Route } from '../api/types'
import { fits } from '../ui/fits'
import { routeOf, stateWords, verbOf } from './words'

test.each([
  ['available', 'pull', 'not pulled'],
  ['pulling', null, 'pulling'],
  ['ready', 'load', 'ready'],
  ['loading', null, 'loading'],
  ['loaded', 'unload', 'in memory'],
  ['draining', null, 'draining'],
  ['failed', 'load', 'failed'],
])('a model that is %s', (state, verb, words) => {
  expect(verbOf(state)).toBe(verb)
  expect(stateWords(state)).toBe(words)
})

test('a model is talked to by the route that leads to it', () => {
  const route = (name: string, task: string, model: string): Route => ({
    name,
    task,
    demo: false,
    built_in: true,
    deployments: [{ provider: 'local', model }],
  })
  const routes = [route('embed', 'embed', 'small'), route('nexus-local', 'chat', 'small'), route('direct', 'chat', 'x')]
  expect(routeOf({ name: 'small' } as Model, routes)?.name).toBe('nexus-local')
  expect(routeOf({ name: 'direct' } as Model, routes)?.name).toBe('direct')
  expect(routeOf({ name: 'yolox-nano' } as Model, routes)).toBeUndefined()
})

test('search prefers beginnings over middles over scattered letters', () => {
  expect(['Models', 'Load models', 'submodels', 'm-o-d', 'runs'].map((text) => fits(text, 'mod'))).toEqual([
    4, 3, 2, 1, 0,
  ])
  expect(fits('anything', ' ')).toBe(1)
})
