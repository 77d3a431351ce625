import { useSyncExternalStore } from 'react'
import { asProblem } from '../api/problem'
import { complete, requestOf, type Delta } from './completion'
import { Meter } from './meter'
import { NO_PARAMETERS, type Message, type Parameters } from './types'

interface State {
  messages: readonly Message[]
  busy: boolean
}

const KEY = 'nexus-chat'
let counter = 0
const freshId = (): string => `${Date.now().toString(36)}-${(counter += 1)}`

function stored(): readonly Message[] {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY) ?? '[]') as Message[]
    return found.map((each) => (each.state === 'streaming' ? { ...each, state: 'stopped' } : each))
  } catch {
    return []
  }
}

/** Sends a request and streams what comes; replaced in tests. */
export type Complete = typeof complete

/**
 * The conversation on the chat page. Tokens are gathered and shown once per animation frame, and only the message
 * that grows is replaced, so that a long conversation costs no more than a short one.
 */
export class Conversation {
  private state: State
  private readonly watchers = new Set<() => void>()
  private stopper: AbortController | null = null
  private readonly completeWith: Complete
  private readonly frame: (call: () => void) => void
  private readonly keep: (messages: readonly Message[]) => void

  constructor(
    options: {
      messages?: readonly Message[]
      complete?: Complete
      frame?: (call: () => void) => void
      keep?: (messages: readonly Message[]) => void
    } = {},
  ) {
    this.state = { messages: options.messages ?? [], busy: false }
    this.completeWith = options.complete ?? complete
    this.frame = options.frame ?? ((call) => void requestAnimationFrame(call))
    this.keep = options.keep ?? (() => undefined)
  }

  readonly watch = (watcher: () => void): (() => void) => {
    this.watchers.add(watcher)
    return () => this.watchers.delete(watcher)
  }

  readonly current = (): State => this.state

  /** Sends a new message and streams the answer. */
  async send(text: string, model: string, parameters: Parameters = NO_PARAMETERS): Promise<void> {
    const asked: Message = { id: freshId(), role: 'user', content: text, state: 'done' }
    await this.answer([...this.state.messages, asked], model, parameters)
  }

  /** Answers again from the given message on: an answer is made anew, a question gets the new text. */
  async again(id: string, model: string, parameters: Parameters = NO_PARAMETERS, text?: string): Promise<void> {
    const at = this.state.messages.findIndex((each) => each.id === id)
    const message = this.state.messages[at]
    if (!message || this.state.busy) return
    const before = this.state.messages.slice(0, at)
    await this.answer(
      message.role === 'user' ? [...before, { ...message, id: freshId(), content: text ?? message.content }] : before,
      model,
      parameters,
    )
  }

  /** Ends the answer that streams; what has come stays. */
  stop(): void {
    this.stopper?.abort()
  }

  /** Forgets everything. */
  clear(): void {
    this.stop()
    this.become({ messages: [], busy: false })
    this.keep([])
  }

  private async answer(before: readonly Message[], model: string, parameters: Parameters): Promise<void> {
    if (this.state.busy) return
    const stopper = new AbortController()
    this.stopper = stopper
    const meter = new Meter(performance.now())
    let message: Message = { id: freshId(), role: 'assistant', content: '', model, state: 'streaming' }
    this.become({ messages: [...before, message], busy: true })
    let due = false
    const show = (): void => {
      due = false
      if (this.stopper === stopper) this.become({ messages: [...before, message], busy: message.state === 'streaming' })
    }
    const take = (delta: Delta): void => {
      if (delta.usage) meter.counted(delta.usage)
      if (!delta.text && !delta.reasoning) return
      meter.piece(performance.now())
      message = {
        ...message,
        content: message.content + (delta.text ?? ''),
        ...(delta.reasoning ? { reasoning: (message.reasoning ?? '') + delta.reasoning } : {}),
      }
      if (!due) {
        due = true
        this.frame(show)
      }
    }
    try {
      for await (const delta of this.completeWith(requestOf(model, before, parameters), stopper.signal)) take(delta)
      message = { ...message, state: 'done' }
    } catch (error) {
      const problem = asProblem(error)
      message = stopper.signal.aborted
        ? { ...message, state: 'stopped' }
        : { ...message, state: 'failed', error: { message: problem.message, requestId: problem.requestId } }
    }
    message = { ...message, stats: meter.stats(performance.now()) }
    if (this.stopper !== stopper || (stopper.signal.aborted && this.state.messages.length === 0)) return
    show()
    this.keep(this.state.messages)
  }

  private become(state: State): void {
    this.state = state
    this.watchers.forEach((watcher) => watcher())
  }
}

/** The one conversation of this tab; it survives a reload, not the tab. */
export const conversation = new Conversation({
  messages: typeof sessionStorage === 'undefined' ? [] : stored(),
  keep: (messages) => {
    try {
      sessionStorage.setItem(KEY, JSON.stringify(messages.slice(-500)))
    } catch {
      sessionStorage.removeItem(KEY) // the storage is full: the talk lives on in this page only
    }
  },
})

export function useConversation(): State {
  return useSyncExternalStore(conversation.watch, conversation.current)
}
