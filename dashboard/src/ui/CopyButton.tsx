import { ActionIcon, Tooltip } from '@mantine/core'
import { useEffect, useState, type ReactNode } from 'react'
import { IconCheck, IconCopy } from './icons'

/** Puts text on the clipboard, also where the page is served over plain HTTP. */
export async function copyText(text: string): Promise<void> {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text)
  const area = document.createElement('textarea')
  area.value = text
  area.style.position = 'fixed'
  area.style.opacity = '0'
  document.body.append(area)
  area.select()
  document.execCommand('copy')
  area.remove()
}

export function CopyButton({
  text,
  label = 'Copy',
  size = 28,
}: {
  text: string | (() => string)
  label?: string
  size?: number
}): ReactNode {
  const [done, setDone] = useState(false)
  useEffect(() => {
    if (!done) return undefined
    const timer = window.setTimeout(() => setDone(false), 1600)
    return () => window.clearTimeout(timer)
  }, [done])
  return (
    <Tooltip label={done ? 'Copied' : label}>
      <ActionIcon
        size={size}
        aria-label={done ? 'Copied' : label}
        onClick={() => void copyText(typeof text === 'string' ? text : text()).then(() => setDone(true))}
      >
        {done ? <IconCheck size={16} /> : <IconCopy size={16} />}
      </ActionIcon>
    </Tooltip>
  )
}
