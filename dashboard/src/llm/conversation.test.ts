import { describe, expect, test } from 'vitest'
import { Problem } from '../api/problem'
import type { CompletionRequest, Delta } from './completion'
import { Conversation, type Complete } from './conversation'
import type { Message } from './types'

type Script = (request: CompletionRequest, signal: AbortSignal) => AsyncGenerator<Delta>

function talk(script: Script, messages: readonly Message[] = []) {
  const frames: (() => void)[] = []
  const kept: (readonly Message[])[] = []
  const asked: CompletionRequest[] = []
  const complete: Complete = (request, signal) => {
    asked.push(request)
    return script(request, signal)
  }
  const conversation = new Conversation({
    messages,
    complete,
    frame: (call) => void frames.push(call),
    keep: (each) => void kept.push(each),
  })
  let draws = 0
  conversation.watch(() => void (draws += 1))
  return { conversation, frames, kept, asked, draws: () => draws, last: () => conversation.current().messages.at(-1) }
}

async function* words(...texts: string[]): AsyncGenerator<Delta> {
  for (const text of texts) yield { text }
  yield { usage: { input: 1, output: texts.length } }
}

describe('Conversation', () => {
  test('gathers tokens and shows them once a frame', async () => {
    const many = Array.from({ length: 1000 }, () => 'x')
    const { conversation, frames, draws, last } = talk(() => words(...many))
    await conversation.send('hello', 'm')
    expect(last()).toMatchObject({ role: 'assistant', content: 'x'.repeat(1000), state: 'done', model: 'm' })
    expect(frames.length).toBe(1)
    expect(draws()).toBeLessThan(5)
  })

  test('leaves finished messages as the same objects, so that they are not drawn again', async () => {
    const { conversation } = talk(() => words('a'))
    await conversation.send('one', 'm')
    const before = conversation.current().messages
    await conversation.send('two', 'm')
    const after = conversation.current().messages
    expect(after.slice(0, 2).every((each, index) => each === before[index])).toBe(true)
  })

  test('keeps what came when it is stopped', async () => {
    const { conversation, last } = talk(async function* (_, signal) {
      yield { text: 'half' }
      await new Promise((_done, fail) =>
        signal.addEventListener('abort', () => fail(new DOMException('stopped', 'AbortError'))),
      )
    })
    const sent = conversation.send('hello', 'm')
    await new Promise((done) => setTimeout(done, 5))
    expect(conversation.current().busy).toBe(true)
    conversation.stop()
    await sent
    expect(last()).toMatchObject({ content: 'half', state: 'stopped' })
    expect(conversation.current().busy).toBe(false)
  })

  test('shows a failure with its request id and keeps the words so far', async () => {
    const { conversation, last } = talk(async function* () {
      yield { text: 'so far' }
      throw new Problem(0, 'stream_ended_early', 'The answer broke off.', 'req_9')
    })
    await conversation.send('hello', 'm')
    expect(last()).toMatchObject({
      content: 'so far',
      state: 'failed',
      error: { message: 'The answer broke off.', requestId: 'req_9' },
    })
  })

  test('answers again from an answer, and from an edited question', async () => {
    let round = 0
    const { conversation, asked } = talk(() => words(`answer ${(round += 1)}`))
    await conversation.send('one', 'm')
    await conversation.send('two', 'm')
    const [question, answer] = conversation.current().messages
    await conversation.again(answer!.id, 'other')
    expect(conversation.current().messages.map((each) => each.content)).toEqual(['one', 'answer 3'])
    expect(asked.at(-1)?.messages).toEqual([{ role: 'user', content: 'one' }])
    await conversation.again(question!.id, 'm', undefined, 'uno')
    expect(conversation.current().messages.map((each) => each.content)).toEqual(['uno', 'answer 4'])
  })

  test('does not send while an answer is being written', async () => {
    const { conversation, asked } = talk(() => words('a'))
    await Promise.all([conversation.send('one', 'm'), conversation.send('two', 'm')])
    expect(asked.length).toBe(1)
  })

  test('is empty after clear, even while an answer streams', async () => {
    const { conversation, kept } = talk(async function* (_, signal) {
      yield { text: 'half' }
      await new Promise((_done, fail) =>
        signal.addEventListener('abort', () => fail(new DOMException('stopped', 'AbortError'))),
      )
    })
    const sent = conversation.send('hello', 'm')
    await new Promise((done) => setTimeout(done, 5))
    conversation.clear()
    await sent
    expect(conversation.current()).toEqual({ messages: [], busy: false })
    expect(kept.at(-1)).toEqual([])
  })
})
