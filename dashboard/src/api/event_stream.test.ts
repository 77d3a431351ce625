import { describe, expect, test } from 'vitest'
import { EventStreamParser, serverEvents, type ServerEvent } from './event_stream'

const STREAM =
  ': ping\nretry: 2000\n\nevent: run\nid: 7\ndata: {"a":1}\n\ndata: one\ndata: two\n\ndata:no space\r\n\r\nevent: odd\r\ndata: äö€😀\r\n\r\ndata: [DONE]\n\n'
const EXPECTED: ServerEvent[] = [
  { event: 'run', data: '{"a":1}', id: '7' },
  { event: 'message', data: 'one\ntwo', id: '7' },
  { event: 'message', data: 'no space', id: '7' },
  { event: 'odd', data: 'äö€😀', id: '7' },
  { event: 'message', data: '[DONE]', id: '7' },
]

async function read(pieces: Uint8Array[]): Promise<ServerEvent[]> {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      pieces.forEach((piece) => controller.enqueue(piece))
      controller.close()
    },
  })
  const events: ServerEvent[] = []
  for await (const event of serverEvents(body)) events.push(event)
  return events
}

describe('EventStreamParser', () => {
  test.each([1, 2, 3, 5, 7, 11, 1000])('gives the same events from pieces of %i characters', (size) => {
    const parser = new EventStreamParser()
    const events: ServerEvent[] = []
    for (let at = 0; at < STREAM.length; at += size) events.push(...parser.feed(STREAM.slice(at, at + size)))
    expect(events).toEqual(EXPECTED)
  })

  test('says nothing for comments and fields without data', () => {
    expect(new EventStreamParser().feed(': ping\n\nevent: run\n\nid: 3\n\n')).toEqual([])
  })

  test('keeps an empty data line', () => {
    expect(new EventStreamParser().feed('data\ndata: x\n\n')).toEqual([{ event: 'message', data: '\nx' }])
  })
})

describe('serverEvents', () => {
  test.each([1, 3, 4096])('puts characters together that arrive in %i bytes at a time', async (size) => {
    const bytes = new TextEncoder().encode(STREAM)
    const pieces: Uint8Array[] = []
    for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.slice(at, at + size))
    expect(await read(pieces)).toEqual(EXPECTED)
  })

  test('gives the last event of a body that ends without its blank line', async () => {
    expect(await read([new TextEncoder().encode('data: last')])).toEqual([{ event: 'message', data: 'last' }])
  })
})
