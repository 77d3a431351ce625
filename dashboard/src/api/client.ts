import createClient, { type Middleware } from 'openapi-fetch'
import { place } from './place'
import { Problem, problemFrom, UNREACHABLE } from './problem'
import type { paths } from './schema'

let csrf = ''
let signedOut: () => void = () => undefined

/** Keeps the token that unsafe requests carry; comes with `GET /api/v1/auth/me`. */
export function setCsrf(token: string): void {
  csrf = token
}

/** Called when the server no longer knows the session. */
export function onSignedOut(call: () => void): void {
  signedOut = call
}

/** The headers that a request sent by hand (a stream) needs. */
export function unsafeHeaders(): Record<string, string> {
  return { 'Content-Type': 'application/json', 'X-CSRF-Token': csrf }
}

/** Throws the Problem in a failed answer. */
export async function check(response: Response): Promise<Response> {
  if (response.ok) return response
  const body: unknown = await response
    .clone()
    .json()
    .catch(() => null)
  const problem = problemFrom(response.status, body, response.headers.get('x-request-id'))
  if (problem.status === 401 && !response.url.includes('/auth/')) signedOut()
  throw problem
}

const guard: Middleware = {
  onRequest({ request }) {
    if (request.method !== 'GET' && csrf) request.headers.set('X-CSRF-Token', csrf)
    return request
  },
  onResponse: ({ response }) => check(response),
  onError: () => new Problem(0, 'unreachable', UNREACHABLE),
}

/** The typed client: every path and shape comes from the server's own OpenAPI document. */
export const api = createClient<paths>({ baseUrl: place.replace(/\/$/, ''), credentials: 'same-origin' })
api.use(guard)

/** The body of an answer, of the shape that `types.ts` gives it; errors have been thrown before. */
export async function data<T>(call: Promise<{ data?: unknown }>): Promise<T> {
  return (await call).data as T
}
