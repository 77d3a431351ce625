import { ActionIcon, Select, Tooltip } from '@mantine/core'
import { useLocalStorage } from '@mantine/hooks'
import { useQuery } from '@tanstack/react-query'
import { getRouteApi, useNavigate } from '@tanstack/react-router'
import { useCallback, useLayoutEffect, useMemo, useRef, useState, type ReactNode } from 'react'
import { ModelActions } from '../models/ModelActions'
import { modelsQuery, routesQuery } from '../models/queries'
import { IconChat, IconCode, IconPlus, IconSettings } from '../ui/icons'
import { useTitle } from '../ui/title'
import { Trouble } from '../ui/trouble'
import { Chip, Empty } from '../ui/words'
import type { Route } from '../api/types'
import { CodeModal } from './CodeModal'
import { requestOf } from './completion'
import { Composer } from './Composer'
import { conversation, useConversation } from './conversation'
import { MessageRow } from './MessageRow'
import { ParameterDrawer } from './ParameterDrawer'
import { NO_PARAMETERS, type Message, type Parameters } from './types'
import './chat.css'

const route = getRouteApi('/chat')
const AT_ONCE = 40
const IDEAS = [
  'What makes a durable run durable?',
  'Write a haiku about a quiet server room',
  'Explain embeddings to a gardener',
]

/** The messages, newest at the bottom; older ones are drawn when one scrolls up to them. */
function Talk({
  messages,
  busy,
  onAgain,
}: {
  messages: readonly Message[]
  busy: boolean
  onAgain: (id: string, text?: string) => void
}): ReactNode {
  const box = useRef<HTMLDivElement>(null)
  const stuck = useRef(true)
  const [shown, setShown] = useState(AT_ONCE)
  const hidden = Math.max(0, messages.length - shown)
  const heightBefore = useRef(0)
  useLayoutEffect(() => {
    const element = box.current
    if (!element) return
    if (heightBefore.current > 0) {
      element.scrollTop += element.scrollHeight - heightBefore.current
      heightBefore.current = 0
    } else if (stuck.current) element.scrollTop = element.scrollHeight
  })
  return (
    <div
      className="talk"
      ref={box}
      tabIndex={0}
      role="log"
      aria-label="Conversation"
      aria-live="off"
      onScroll={({ currentTarget: element }) => {
        stuck.current = element.scrollHeight - element.scrollTop - element.clientHeight < 40
        if (element.scrollTop < 200 && hidden > 0) {
          heightBefore.current = element.scrollHeight
          setShown(shown + AT_ONCE)
        }
      }}
    >
      <div className="talk-inner">
        {messages.slice(hidden).map((message) => (
          <MessageRow key={message.id} message={message} busy={busy} onAgain={onAgain} />
        ))}
      </div>
    </div>
  )
}

/** Says that the chosen model's files are not here yet, and brings them. */
function Missing({ route }: { route: Route }): ReactNode {
  const models = useQuery(modelsQuery).data?.data ?? []
  const model = models.find((each) => route.deployments.some(({ model: name }) => name === each.name))
  if (model?.state !== 'available' && model?.state !== 'pulling') return null
  return (
    <div className="missing" role="status">
      <span>
        <b>{model.name}</b> is not on this machine yet.
      </span>
      <ModelActions model={model} route={undefined} wide />
    </div>
  )
}

/** The chat playground. */
export default function Chat(): ReactNode {
  useTitle('Chat')
  const { model: asked } = route.useSearch()
  const navigate = useNavigate()
  const models = useQuery(routesQuery)
  const [last, setLast] = useLocalStorage<string>({
    key: 'nexus-chat-model',
    defaultValue: '',
    getInitialValueInEffect: false,
  })
  const [parameters, setParameters] = useLocalStorage<Parameters>({
    key: 'nexus-chat-parameters',
    defaultValue: NO_PARAMETERS,
    getInitialValueInEffect: false,
  })
  const [tuning, setTuning] = useState(false)
  const [coding, setCoding] = useState(false)
  const { messages, busy } = useConversation()
  const choices = useMemo(() => (models.data?.data ?? []).filter((each) => each.task === 'chat'), [models.data])
  const names = choices.map((each) => each.name)
  const model = [asked, last].find((name) => name && names.includes(name)) ?? names[0] ?? ''
  const chosen = choices.find((each) => each.name === model)
  const again = useCallback(
    (id: string, text?: string) => void conversation.again(id, model, parameters, text),
    [model, parameters],
  )
  const send = (text: string): void => void conversation.send(text, model, parameters)
  const lastAnswer = useMemo(
    () => messages.findLast((each) => each.role === 'assistant' && each.state !== 'streaming'),
    [messages],
  )
  const tuned = JSON.stringify(parameters) !== JSON.stringify(NO_PARAMETERS)

  return (
    <div className="chat-page">
      <header className="chat-head">
        <h1>Chat</h1>
        <Select
          aria-label="Model"
          data={choices.map((each) => ({
            value: each.name,
            label: each.demo ? `${each.name} (demo model)` : each.name,
          }))}
          value={model || null}
          onChange={(name) => {
            if (!name) return
            setLast(name)
            void navigate({ to: '/chat', search: { model: name }, replace: true })
          }}
          searchable
          allowDeselect={false}
          placeholder={models.isPending ? 'Loading' : 'No chat model'}
          nothingFoundMessage="No such model"
          className="chat-model"
          size="sm"
        />
        {chosen?.demo ? (
          <span className="wide">
            <Chip tone="warn" title="Small and for trying things out, not for work">
              demo model
            </Chip>
          </span>
        ) : null}
        <span style={{ flex: 1 }} />
        <Tooltip label="As code">
          <ActionIcon size={34} aria-label="Show as code" onClick={() => setCoding(true)}>
            <IconCode />
          </ActionIcon>
        </Tooltip>
        <Tooltip label="System prompt and parameters">
          <ActionIcon
            size={34}
            aria-label="Parameters"
            variant={tuned ? 'light' : 'subtle'}
            color={tuned ? 'violet' : 'gray'}
            onClick={() => setTuning(true)}
          >
            <IconSettings />
          </ActionIcon>
        </Tooltip>
        <Tooltip label="New chat">
          <ActionIcon
            size={34}
            aria-label="New chat"
            disabled={messages.length === 0}
            onClick={() => conversation.clear()}
          >
            <IconPlus />
          </ActionIcon>
        </Tooltip>
      </header>
      {chosen?.built_in ? <Missing route={chosen} /> : null}
      {models.isError ? <Trouble error={models.error} retry={() => void models.refetch()} /> : null}
      {messages.length === 0 && !models.isError ? (
        <div className="talk talk-empty">
          <Empty icon={IconChat} title="What would you like to know?">
            {chosen?.demo
              ? 'The demo model is small: fine for trying things out, not for work. Add a provider for real answers.'
              : `${model || 'A model'} answers here, token by token.`}
          </Empty>
          <div className="ideas">
            {IDEAS.map((idea) => (
              <button type="button" key={idea} disabled={!model} onClick={() => send(idea)}>
                {idea}
              </button>
            ))}
          </div>
        </div>
      ) : (
        <Talk messages={messages} busy={busy} onAgain={again} />
      )}
      <div className="visually-hidden" aria-live="polite">
        {busy ? 'The answer is being written' : lastAnswer ? lastAnswer.content.slice(0, 600) : ''}
      </div>
      <Composer
        busy={busy}
        disabled={!model}
        onSend={send}
        onStop={() => conversation.stop()}
        note="Models make mistakes. Enter sends, Shift + Enter makes a new line."
      />
      <ParameterDrawer open={tuning} onClose={() => setTuning(false)} value={parameters} onChange={setParameters} />
      <CodeModal
        open={coding}
        onClose={() => setCoding(false)}
        request={requestOf(
          model,
          messages.length > 0
            ? messages.filter((each) => each.state !== 'streaming')
            : [{ id: '', role: 'user', content: 'Hello', state: 'done' }],
          parameters,
        )}
      />
    </div>
  )
}
