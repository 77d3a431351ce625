/** An RFC 9457 answer of the API, or what stands in for one when the server could not be reached. */
export class Problem extends Error {
  readonly status: number
  readonly code: string
  readonly requestId: string | undefined
  readonly fields: readonly FieldProblem[]

  constructor(status: number, code: string, detail: string, requestId?: string, fields: readonly FieldProblem[] = []) {
    super(detail)
    this.name = 'Problem'
    this.status = status
    this.code = code
    this.requestId = requestId
    this.fields = fields
  }

  /** What is wrong with one field of the form that was sent, if anything. */
  of(field: string): string | undefined {
    return this.fields.find((each) => each.pointer === `/${field}` || each.pointer === field)?.detail
  }
}

export interface FieldProblem {
  pointer: string
  detail: string
}

export const UNREACHABLE = 'The server cannot be reached. It may be restarting.'

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null
const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined)

/** Reads the error body of any of the API's dialects (native problem, `{error: {...}}`). */
export function problemFrom(status: number, body: unknown, requestId?: string | null): Problem {
  const outer = isObject(body) ? body : {}
  const inner = isObject(outer['error']) ? outer['error'] : outer
  const detail =
    text(inner['detail']) ?? text(inner['message']) ?? text(inner['title']) ?? `The server answered ${status}.`
  const fields = Array.isArray(inner['errors'])
    ? inner['errors']
        .filter(isObject)
        .map((each) => ({ pointer: text(each['pointer']) ?? '', detail: text(each['detail']) ?? detail }))
    : []
  const field = text(inner['param']) ?? text(inner['field'])
  if (field && fields.length === 0) fields.push({ pointer: `/${field}`, detail })
  return new Problem(
    status,
    text(inner['code']) ?? 'error',
    detail,
    text(inner['request_id']) ?? requestId ?? undefined,
    fields,
  )
}

/** Anything thrown, as a Problem. */
export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error
  if (error instanceof TypeError) return new Problem(0, 'unreachable', UNREACHABLE)
  return new Problem(0, 'error', error instanceof Error ? error.message : 'Something went wrong.')
}
