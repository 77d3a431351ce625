import { expect, test } from 'vitest'
import { asProblem, Problem, problemFrom } from './problem'

test('reads a native problem with its fields', () => {
  const problem = problemFrom(422, {
    code: 'invalid_input',
    detail: 'The password is too short.',
    request_id: 'req_1',
    errors: [{ pointer: '/password', detail: 'at least 12' }],
  })
  expect([problem.status, problem.code, problem.message, problem.requestId]).toEqual([
    422,
    'invalid_input',
    'The password is too short.',
    'req_1',
  ])
  expect(problem.of('password')).toBe('at least 12')
  expect(problem.of('email')).toBeUndefined()
})

test('reads the error of the completions dialect', () => {
  const problem = problemFrom(
    404,
    {
      error: {
        message: 'There is no model x.',
        type: 'invalid_request_error',
        param: 'model',
        code: 'model_not_found',
      },
    },
    'req_2',
  )
  expect([problem.code, problem.message, problem.requestId, problem.of('model')]).toEqual([
    'model_not_found',
    'There is no model x.',
    'req_2',
    'There is no model x.',
  ])
})

test.each([[null], ['<html>'], [{}], [[]], [{ error: null }]])('has words for a body that says nothing: %j', (body) => {
  expect(problemFrom(502, body).message).toBe('The server answered 502.')
})

test('says that the server cannot be reached when fetch fails', () => {
  expect(asProblem(new TypeError('Failed to fetch')).code).toBe('unreachable')
  const problem = new Problem(1, 'a', 'b')
  expect(asProblem(problem)).toBe(problem)
})
