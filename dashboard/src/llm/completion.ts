import { check, unsafeHeaders } from '../api/client'
import { serverEvents } from '../api/event_stream'
import { address } from '../api/place'
import { Problem, problemFrom } from '../api/problem'
import type { Message, Parameters } from './types'

/** The part of `POST /v1/chat/completions` that the chat uses. */
export interface CompletionRequest {
  model: string
  messages: { role: 'system' | 'user' | 'assistant'; content: string }[]
  temperature?: number
  top_p?: number
  max_completion_tokens?: number
  seed?: number
  stream?: boolean
  stream_options?: { include_usage: boolean }
}

/** What a chunk of the stream adds. */
export interface Delta {
  text?: string
  reasoning?: string
  usage?: { input: number; output: number }
  finish?: string
}

/** The request for the next answer to these messages. Failed and empty ones are left out. */
export function requestOf(model: string, messages: readonly Message[], parameters: Parameters): CompletionRequest {
  const talk = messages.filter((each) => each.content !== '').map(({ role, content }) => ({ role, content }))
  return {
    model,
    messages: parameters.system.trim() ? [{ role: 'system', content: parameters.system.trim() }, ...talk] : talk,
    ...(parameters.temperature === null ? {} : { temperature: parameters.temperature }),
    ...(parameters.topP === null ? {} : { top_p: parameters.topP }),
    ...(parameters.maxTokens === null ? {} : { max_completion_tokens: parameters.maxTokens }),
    ...(parameters.seed === null ? {} : { seed: parameters.seed }),
  }
}

interface Chunk {
  choices?: {
    delta?: { content?: string | null; reasoning_content?: string | null; reasoning?: string | null }
    finish_reason?: string | null
  }[]
  usage?: { prompt_tokens?: number; completion_tokens?: number } | null
  error?: unknown
}

/** Reads one `data:` line of the stream. Throws the Problem in an error chunk. */
export function deltaOf(line: string): Delta {
  const chunk = JSON.parse(line) as Chunk
  if (chunk.error) throw problemFrom(0, chunk)
  const choice = chunk.choices?.[0]
  const text = choice?.delta?.content
  const reasoning = choice?.delta?.reasoning_content ?? choice?.delta?.reasoning
  return {
    ...(text ? { text } : {}),
    ...(reasoning ? { reasoning } : {}),
    ...(choice?.finish_reason ? { finish: choice.finish_reason } : {}),
    ...(chunk.usage
      ? { usage: { input: chunk.usage.prompt_tokens ?? 0, output: chunk.usage.completion_tokens ?? 0 } }
      : {}),
  }
}

/** Sends a request and gives what comes back, piece by piece. A stream that breaks off is an error. */
export async function* complete(request: CompletionRequest, signal: AbortSignal): AsyncGenerator<Delta> {
  const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } })
  const response = await check(
    await fetch(address('/api/v1/playground/chat'), {
      method: 'POST',
      headers: unsafeHeaders(),
      body,
      signal,
      credentials: 'same-origin',
    }),
  )
  if (!response.body) throw new Problem(0, 'no_body', 'The server sent no answer.')
  for await (const event of serverEvents(response.body)) {
    if (event.data === '[DONE]') return
    yield deltaOf(event.data)
  }
  throw new Problem(
    0,
    'stream_ended_early',
    'The answer broke off before its end.',
    response.headers.get('x-request-id') ?? undefined,
  )
}
