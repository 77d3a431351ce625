export interface ServerEvent {
  event: string
  data: string
  id?: string
}

/**
 * Reads server-sent events from text that arrives in pieces of any size (WHATWG HTML, section 9.2.6).
 * `feed` returns the events completed so far.
 */
export class EventStreamParser {
  private rest = ''
  private event = ''
  private lines: string[] = []
  private id: string | undefined

  feed(piece: string): ServerEvent[] {
    const events: ServerEvent[] = []
    let text = this.rest + piece
    // A lone CR at the end may be the first half of CRLF.
    const held = text.endsWith('\r') ? '\r' : ''
    if (held) text = text.slice(0, -1)
    const lines = text.split(/\r\n|\r|\n/)
    this.rest = (lines.pop() ?? '') + held
    for (const line of lines) this.read(line, events)
    return events
  }

  private read(line: string, events: ServerEvent[]): void {
    if (line === '') {
      if (this.lines.length > 0) {
        events.push({
          event: this.event || 'message',
          data: this.lines.join('\n'),
          ...(this.id === undefined ? {} : { id: this.id }),
        })
      }
      this.event = ''
      this.lines = []
      return
    }
    if (line.startsWith(':')) return
    const colon = line.indexOf(':')
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'data') this.lines.push(value)
    else if (field === 'event') this.event = value
    else if (field === 'id') this.id = value
  }
}

/** The events of a fetched body, one by one. */
export async function* serverEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  const parser = new EventStreamParser()
  try {
    for (;;) {
      const { value, done } = await reader.read()
      if (done) break
      yield* parser.feed(decoder.decode(value, { stream: true }))
    }
    yield* parser.feed(`${decoder.decode()}\n\n`)
  } finally {
    await reader.cancel().catch(() => undefined)
  }
}
