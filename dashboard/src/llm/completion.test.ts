import { expect, test } from 'vitest'
import { deltaOf, requestOf } from './completion'
import { Meter } from './meter'
import { asCurl, asPython } from './snippets'
import { NO_PARAMETERS, type Message } from './types'

const message = (role: 'user' | 'assistant', content: string): Message => ({
  id: content,
  role,
  content,
  state: 'done',
})

test('a request carries the system prompt first, set parameters only, and no empty message', () => {
  const messages = [message('user', 'one'), message('assistant', ''), message('user', 'two')]
  expect(requestOf('m', messages, { ...NO_PARAMETERS, system: ' be brief ', temperature: 0 })).toEqual({
    model: 'm',
    messages: [
      { role: 'system', content: 'be brief' },
      { role: 'user', content: 'one' },
      { role: 'user', content: 'two' },
    ],
    temperature: 0,
  })
})

test.each([
  ['{"choices":[{"delta":{"role":"assistant","content":""}}]}', {}],
  ['{"choices":[{"delta":{"content":"Hi"}}]}', { text: 'Hi' }],
  ['{"choices":[{"delta":{"reasoning_content":"hm"}}]}', { reasoning: 'hm' }],
  ['{"choices":[{"delta":{},"finish_reason":"stop"}]}', { finish: 'stop' }],
  ['{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}', { usage: { input: 3, output: 4 } }],
  ['{"choices":[{"delta":{"content":"x"}}],"usage":null}', { text: 'x' }],
])('chunk %s', (line, expected) => expect(deltaOf(line)).toEqual(expected))

test('an error chunk is thrown with its words', () => {
  expect(() => deltaOf('{"error":{"message":"The provider is gone.","code":"upstream_error"}}')).toThrow(
    'The provider is gone.',
  )
})

test('the meter measures from the first token on', () => {
  const meter = new Meter(1000)
  for (let piece = 0; piece <= 10; piece += 1) meter.piece(1250 + piece * 100)
  expect(meter.stats(2250)).toEqual({
    firstToken: 250,
    total: 1250,
    inputTokens: null,
    outputTokens: 11,
    speed: 10,
    estimated: true,
  })
  meter.counted({ input: 5, output: 21 })
  expect(meter.stats(2250)).toMatchObject({ inputTokens: 5, outputTokens: 21, speed: 20, estimated: false })
})

test('without any token there is no speed', () => {
  expect(new Meter(0).stats(900)).toMatchObject({ firstToken: null, speed: null, outputTokens: null })
})

test('the curl command survives quotes in the text', () => {
  const text = asCurl('http://h/', { model: 'm', messages: [{ role: 'user', content: "it's" }] })
  expect(text).toContain('http://h/v1/chat/completions')
  expect(text).toContain(`it'\\''s`)
  expect(text).toContain('$NEXUS_API_KEY')
})

test('the Python program holds the same request', () => {
  const text = asPython('http://h/nexus/', {
    model: 'm',
    messages: [{ role: 'user', content: 'a "b"\nc' }],
    temperature: 0.5,
  })
  expect(text).toContain('base_url="http://h/nexus/v1"')
  expect(text).toContain('{"role": "user", "content": "a \\"b\\"\\nc"},')
  expect(text).toContain('    temperature=0.5,')
})
