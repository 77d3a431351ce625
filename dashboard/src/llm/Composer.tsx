import { ActionIcon, Textarea, Tooltip } from '@mantine/core'
import { useEffect, useRef, useState, type ReactNode } from 'react'
import { IconSend, IconStop } from '../ui/icons'

interface ComposerProps {
  busy: boolean
  disabled: boolean
  note: ReactNode
  onSend: (text: string) => void
  onStop: () => void
}

/** Where one writes: Enter sends, Shift-Enter makes a line, Escape stops the answer. */
export function Composer({ busy, disabled, note, onSend, onStop }: ComposerProps): ReactNode {
  const [text, setText] = useState('')
  const field = useRef<HTMLTextAreaElement>(null)
  const wasBusy = useRef(false)
  useEffect(() => {
    if (wasBusy.current && !busy && window.matchMedia('(hover: hover)').matches)
      field.current?.focus({ preventScroll: true })
    wasBusy.current = busy
  }, [busy])
  const send = (): void => {
    const words = text.trim()
    if (!words || busy || disabled) return
    setText('')
    onSend(words)
  }
  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault()
        send()
      }}
    >
      <div className="composer-box">
        <Textarea
          ref={field}
          aria-label="Message"
          placeholder="Ask anything"
          variant="unstyled"
          autosize
          minRows={1}
          maxRows={9}
          autoFocus
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === 'Escape' && busy) onStop()
            if (event.key === 'Enter' && !event.shiftKey && !event.nativeEvent.isComposing) {
              event.preventDefault()
              send()
            }
          }}
        />
        {busy ? (
          <Tooltip label="Stop (Esc)">
            <ActionIcon
              size={36}
              radius="xl"
              variant="filled"
              color="dark.6"
              className="composer-button"
              aria-label="Stop"
              onClick={onStop}
            >
              <IconStop size={18} fill="currentColor" />
            </ActionIcon>
          </Tooltip>
        ) : (
          <ActionIcon
            size={36}
            radius="xl"
            variant="filled"
            color="violet"
            className="composer-button"
            type="submit"
            aria-label="Send"
            disabled={disabled || text.trim() === ''}
          >
            <IconSend />
          </ActionIcon>
        )}
      </div>
      <p className="composer-note">{note}</p>
    </form>
  )
}
