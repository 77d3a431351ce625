import { ActionIcon, Button, Group, Textarea, Tooltip } from '@mantine/core'
import { memo, useState, type ReactNode } from 'react'
import { CopyButton } from '../ui/CopyButton'
import { count, milliseconds } from '../ui/format'
import { IconAlert, IconEdit, IconRetry } from '../ui/icons'
import { Markdown } from './Markdown'
import type { Message, Stats } from './types'

/** The figures of an answer as one line. */
export function statsWords(stats: Stats): string {
  const about = stats.estimated ? '≈ ' : ''
  return [
    stats.outputTokens === null ? '' : `${about}${count(stats.outputTokens)} tokens`,
    stats.speed === null ? '' : `${stats.speed < 10 ? stats.speed.toFixed(1) : Math.round(stats.speed)} tok/s`,
    stats.firstToken === null ? '' : `first token ${milliseconds(stats.firstToken)}`,
    stats.inputTokens === null ? '' : `prompt ${count(stats.inputTokens)}`,
  ]
    .filter(Boolean)
    .join(' · ')
}

function Editor({
  text,
  onSend,
  onCancel,
}: {
  text: string
  onSend: (text: string) => void
  onCancel: () => void
}): ReactNode {
  const [value, setValue] = useState(text)
  const send = (): void => {
    if (value.trim()) onSend(value.trim())
  }
  return (
    <div className="editor">
      <Textarea
        aria-label="Edit the message"
        autosize
        maxRows={12}
        data-autofocus
        autoFocus
        value={value}
        onChange={(event) => setValue(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === 'Escape') onCancel()
          if (event.key === 'Enter' && !event.shiftKey && !event.nativeEvent.isComposing) {
            event.preventDefault()
            send()
          }
        }}
      />
      <Group justify="flex-end" gap={8} mt={8}>
        <Button variant="default" size="xs" onClick={onCancel}>
          Cancel
        </Button>
        <Button size="xs" onClick={send}>
          Send
        </Button>
      </Group>
    </div>
  )
}

interface RowProps {
  message: Message
  busy: boolean
  onAgain: (id: string, text?: string) => void
}

function Asked({ message, busy, onAgain }: RowProps): ReactNode {
  const [editing, setEditing] = useState(false)
  if (editing && !busy) {
    return (
      <Editor
        text={message.content}
        onCancel={() => setEditing(false)}
        onSend={(text) => {
          setEditing(false)
          onAgain(message.id, text)
        }}
      />
    )
  }
  return (
    <>
      <div className="asked">{message.content}</div>
      <div className="message-tools asked-tools">
        <CopyButton text={message.content} label="Copy the message" />
        <Tooltip label="Edit and send again">
          <ActionIcon size={28} aria-label="Edit the message" disabled={busy} onClick={() => setEditing(true)}>
            <IconEdit size={16} />
          </ActionIcon>
        </Tooltip>
      </div>
    </>
  )
}

function Answered({ message, busy, onAgain }: RowProps): ReactNode {
  const waiting = message.state === 'streaming' && message.content === '' && !message.reasoning
  return (
    <>
      <div className="answer-model">{message.model}</div>
      {message.reasoning ? (
        <details className="reasoning">
          <summary>Thoughts</summary>
          {message.reasoning}
        </details>
      ) : null}
      {waiting ? (
        <div className="thinking" role="status" aria-label="Waiting for the first token">
          <i />
          <i />
          <i />
        </div>
      ) : (
        <Markdown text={message.content} />
      )}
      {message.error ? (
        <div className="failure" role="alert">
          <IconAlert size={17} />
          <span>
            {message.error.message}
            {message.error.requestId ? <span className="mono"> Request {message.error.requestId}</span> : null}
          </span>
        </div>
      ) : null}
      {message.state === 'streaming' ? null : (
        <div className="message-tools">
          <CopyButton text={message.content} label="Copy the answer" />
          <Tooltip label="Answer again">
            <ActionIcon size={28} aria-label="Answer again" disabled={busy} onClick={() => onAgain(message.id)}>
              <IconRetry size={16} />
            </ActionIcon>
          </Tooltip>
          <span className="soft small numbers">
            {message.state === 'stopped' ? 'stopped · ' : ''}
            {message.stats ? statsWords(message.stats) : ''}
          </span>
        </div>
      )}
    </>
  )
}

/** One message; drawn again only when it or the state of its buttons changes. */
export const MessageRow = memo(function MessageRow(props: RowProps): ReactNode {
  const { role } = props.message
  return (
    <article className="message" data-role={role} aria-label={role === 'user' ? 'You' : 'Answer'}>
      {role === 'user' ? <Asked {...props} /> : <Answered {...props} />}
    </article>
  )
})
