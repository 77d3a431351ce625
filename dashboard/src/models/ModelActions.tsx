import { ActionIcon, Button, Tooltip } from '@mantine/core'
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import { Link } from '@tanstack/react-router'
import type { ReactNode } from 'react'
import { api, data } from '../api/client'
import type { Model, Run } from '../api/types'
import { IconChat, IconDownload, IconPower } from '../ui/icons'
import { complain, tell } from '../ui/toast'
import { ProgressLine } from '../runs/ProgressLine'
import { runsQuery, takeRun } from '../runs/queries'
import { takeModel } from './queries'
import { ButtonLink, IconLink } from '../ui/links'

export type Verb = 'load' | 'unload' | 'pull'

/** What can be done with a model in this state. */
export function verbOf(state: string): Verb | null {
  if (state === 'ready' || state === 'loaded') return 'unload'
  if (state === 'missing' || state === 'not_pulled' || state === 'remote') return 'pull'
  if (state === 'available' || state === 'pulled' || state === 'unloaded' || state === 'failed') return 'load'
  return null
}

const WORDS = {
  load: { name: 'Load', icon: IconPower, done: 'is loaded' },
  unload: { name: 'Unload', icon: IconPower, done: 'is unloaded' },
  pull: { name: 'Pull', icon: IconDownload, done: 'is being pulled' },
} as const

/** The pull of this model that runs just now, if any. */
function usePull(name: string): Run | undefined {
  const runs = useQuery(runsQuery({ limit: 20, status: 'running' }))
  return runs.data?.data.find((run) => run.kind.includes('pull') && run.name === name && run.status === 'running')
}

/** Load, unload or pull, whichever fits; a pull shows how far it is. */
export function ModelActions({ model, wide = false }: { model: Model; wide?: boolean }): ReactNode {
  const queries = useQueryClient()
  const pull = usePull(model.name)
  const verb = model.source === 'route' ? null : verbOf(model.state)
  const act = useMutation({
    mutationFn: async (which: Verb): Promise<unknown> => {
      const path = { params: { path: { name: model.name } } }
      if (which === 'load') return data(api.POST('/api/v1/models/{name}/load', path))
      if (which === 'unload') return data(api.POST('/api/v1/models/{name}/unload', path))
      return data(api.POST('/api/v1/models/{name}/pull', path))
    },
    onSuccess: (answer, which) => {
      if (which === 'pull') takeRun(queries, answer as Run)
      else takeModel(queries, answer as Model)
      void queries.invalidateQueries({ queryKey: ['models'] })
      tell(`${model.name} ${WORDS[which].done}`)
    },
    onError: (error, which) => complain(`${model.name}: ${WORDS[which].name.toLowerCase()} failed`, error),
  })
  if (pull) {
    return (
      <Link to="/runs/$runId" params={{ runId: pull.id }}>
        <ProgressLine progress={pull.progress} />
      </Link>
    )
  }
  const chat = model.task === 'chat' ? { to: '/chat' as const, search: { model: model.name } } : null
  const words = verb ? WORDS[verb] : null
  if (wide) {
    return (
      <>
        {chat ? (
          <ButtonLink {...chat} leftSection={<IconChat size={16} />}>
            Chat
          </ButtonLink>
        ) : null}
        {words && verb ? (
          <Button variant="default" loading={act.isPending} leftSection={<words.icon size={16} />} onClick={() => act.mutate(verb)}>
            {words.name}
          </Button>
        ) : null}
      </>
    )
  }
  return (
    <span className="actions">
      {chat ? (
        <Tooltip label="Chat">
          <IconLink {...chat} size={30} aria-label={`Chat with ${model.name}`}>
            <IconChat size={17} />
          </IconLink>
        </Tooltip>
      ) : null}
      {words && verb ? (
        <Tooltip label={words.name}>
          <ActionIcon size={30} aria-label={`${words.name} ${model.name}`} loading={act.isPending} onClick={() => act.mutate(verb)}>
            <words.icon size={17} />
          </ActionIcon>
        </Tooltip>
      ) : null}
    </span>
  )
}
