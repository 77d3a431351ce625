import { Modal, Tabs } from '@mantine/core'
import type { ReactNode } from 'react'
import { CopyButton } from '../ui/CopyButton'
import type { CompletionRequest } from './completion'
import { asCurl, asPython } from './snippets'

/** The next request as a program, to go on from the playground. */
export function CodeModal({
  open,
  onClose,
  request,
}: {
  open: boolean
  onClose: () => void
  request: CompletionRequest
}): ReactNode {
  const base = new URL('.', document.baseURI).href
  const programs = [
    ['curl', asCurl(base, request)],
    ['Python', asPython(base, request)],
  ] as const
  return (
    <Modal
      opened={open}
      onClose={onClose}
      size={720}
      title={<span className="drawer-title">This conversation as code</span>}
    >
      <Tabs defaultValue="curl">
        <Tabs.List>
          {programs.map(([name]) => (
            <Tabs.Tab key={name} value={name}>
              {name}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        {programs.map(([name, text]) => (
          <Tabs.Panel key={name} value={name} pt="sm" pos="relative">
            <div className="code-copy">
              <CopyButton text={text} label={`Copy as ${name}`} />
            </div>
            <pre className="code" tabIndex={0} aria-label={name} style={{ maxHeight: '56dvh' }}>
              {text}
            </pre>
          </Tabs.Panel>
        ))}
      </Tabs>
      <p className="soft small">Make a key with: nexus keys create</p>
    </Modal>
  )
}
