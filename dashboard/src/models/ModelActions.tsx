import { ActionIcon, Button, Tooltip } from '@mantine/core'
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import { Link } from '@tanstack/react-router'
import type { ReactNode } from 'react'
import { api, data } from '../api/client'
import type { Model, Route, Run } from '../api/types'
import { ProgressLine } from '../runs/ProgressLine'
import { runsQuery, takeRun } from '../runs/queries'
import { IconChat, IconDownload, IconPower } from '../ui/icons'
import { ButtonLink, IconLink } from '../ui/links'
import { complain, tell } from '../ui/toast'
import { takeModel } from './queries'
import { verbOf, type Verb } from './words'

const WORDS = {
  load: { name: 'Load', icon: IconPower, done: 'is in memory' },
  unload: { name: 'Unload', icon: IconPower, done: 'is leaving the memory' },
  pull: { name: 'Pull', icon: IconDownload, done: 'is being pulled' },
} as const

/** The pull of this model that runs just now, if any. */
function usePull(name: string): Run | undefined {
  const runs = useQuery(runsQuery({ limit: 20 }))
  return runs.data?.data.find(
    (run) => run.kind === 'model_pull' && run.name === name && (run.status === 'running' || run.status === 'queued'),
  )
}

function useAct(model: Model) {
  const queries = useQueryClient()
  return useMutation({
    mutationFn: async (verb: Verb): Promise<void> => {
      const path = { params: { path: { name: model.name } } }
      if (verb === 'load') takeModel(queries, await data<Model>(api.POST('/api/v1/models/{name}/load', path)))
      else if (verb === 'unload') takeModel(queries, await data<Model>(api.POST('/api/v1/models/{name}/unload', path)))
      else {
        takeRun(queries, await data<Run>(api.POST('/api/v1/models/{name}/pull', path)))
        void queries.invalidateQueries({ queryKey: ['runs'] })
      }
    },
    onSuccess: (_, verb) => {
      void queries.invalidateQueries({ queryKey: ['models'] })
      tell(`${model.name} ${WORDS[verb].done}`)
    },
    onError: (error, verb) => complain(`${WORDS[verb].name} failed: ${model.name}`, error),
  })
}

interface ModelActionsProps {
  model: Model
  /** The name by which one talks to it. */
  route: Route | undefined
  wide?: boolean
}

/** Load, unload or pull, whichever fits; a pull shows how far it is. */
export function ModelActions({ model, route, wide = false }: ModelActionsProps): ReactNode {
  const pull = usePull(model.name)
  const act = useAct(model)
  const verb = verbOf(model.state)
  const words = verb ? WORDS[verb] : null
  const chat = route && verb !== 'pull' ? { to: '/chat' as const, search: { model: route.name } } : null
  if (pull) {
    return (
      <Link to="/runs/$runId" params={{ runId: pull.id }}>
        <ProgressLine progress={pull.progress} />
      </Link>
    )
  }
  if (wide) {
    return (
      <>
        {chat ? (
          <ButtonLink {...chat} leftSection={<IconChat size={16} />}>
            Chat
          </ButtonLink>
        ) : null}
        {words && verb ? (
          <Button
            variant="default"
            loading={act.isPending}
            leftSection={<words.icon size={16} />}
            onClick={() => act.mutate(verb)}
          >
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
          <ActionIcon
            size={30}
            aria-label={`${words.name} ${model.name}`}
            loading={act.isPending}
            onClick={() => act.mutate(verb)}
          >
            <words.icon size={17} />
          </ActionIcon>
        </Tooltip>
      ) : null}
    </span>
  )
}
