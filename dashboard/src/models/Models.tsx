import { Button, Chip as Choice, Group, Skeleton, TextInput } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { getRouteApi, Link, useNavigate } from '@tanstack/react-router'
import type { ReactNode } from 'react'
import type { Alias, Model, Route } from '../api/types'
import { bytes, words } from '../ui/format'
import { IconModels, IconSearch } from '../ui/icons'
import { useTitle } from '../ui/title'
import { Trouble } from '../ui/trouble'
import { Chip, Empty, PageHead, Status } from '../ui/words'
import { ModelActions } from './ModelActions'
import { ModelDrawer } from './ModelDrawer'
import { modelsQuery, routesQuery } from './queries'
import { routeOf, stateWords } from './words'
import './models.css'

const route = getRouteApi('/models')

/** Names such as "champion" with the version that each stands for. */
function Aliases({ aliases, version }: { aliases: readonly Alias[]; version: number }): ReactNode {
  return aliases.map((each) => (
    <Chip key={each.alias} tone={each.alias === 'champion' ? 'brand' : undefined}>
      {each.version === version ? each.alias : `${each.alias} v${each.version}`}
    </Chip>
  ))
}

function Row({ model, route, open }: { model: Model; route: Route | undefined; open: () => void }): ReactNode {
  return (
    <tr data-open onClick={open}>
      <td>
        <Link
          to="/models"
          search={(old) => ({ ...old, model: model.name })}
          onClick={(event) => event.stopPropagation()}
        >
          {model.name}
        </Link>
        {route?.demo ? (
          <>
            {' '}
            <Chip tone="warn" title="Small and for trying things out, not for work">
              demo model
            </Chip>
          </>
        ) : null}
        {model.note ? <div className="soft small model-about">{model.note}</div> : null}
        <div className="narrow model-narrow">
          <Status value={model.state} label={stateWords(model.state)} />
          <span className="soft small">{words(model.task)}</span>
        </div>
      </td>
      <td className="soft wide">
        {words(model.task)}
        <div className="small">{words(model.kind)}</div>
      </td>
      <td className="wide">
        <Status value={model.state} label={stateWords(model.state)} />
      </td>
      <td className="wide">
        <span className="chips">
          <span className="numbers small soft">v{model.version}</span>
          <Aliases aliases={model.aliases} version={model.version} />
        </span>
      </td>
      <td className="wide numbers soft right">{model.size ? bytes(model.size) : '–'}</td>
      <td className="wide soft small nowrap">{model.licence || '–'}</td>
      <td className="right" onClick={(event) => event.stopPropagation()}>
        <ModelActions model={model} route={route} />
      </td>
    </tr>
  )
}

/** Every model of every kind in one list. */
export default function Models(): ReactNode {
  useTitle('Models')
  const search = route.useSearch()
  const navigate = useNavigate()
  const query = useQuery(modelsQuery)
  const routes = useQuery(routesQuery).data?.data ?? []
  const all = query.data?.data ?? []
  const kinds = [...new Set(all.map((model) => model.kind))]
  const wanted = (search.q ?? '').toLowerCase()
  const rows = all.filter(
    (model) =>
      (!search.kind || model.kind === search.kind) &&
      (!wanted || `${model.name} ${model.task} ${model.kind} ${model.note}`.toLowerCase().includes(wanted)),
  )
  const chosen = all.find((model) => model.name === search.model)
  const set = (change: Partial<typeof search>): void =>
    void navigate({ to: '/models', search: { ...search, ...change }, replace: true })
  return (
    <div className="page">
      <PageHead title="Models" about="Language, vision and prediction models in one catalogue.">
        <TextInput
          aria-label="Filter models"
          placeholder="Filter"
          leftSection={<IconSearch size={15} />}
          value={search.q ?? ''}
          onChange={(event) => set({ q: event.currentTarget.value || undefined })}
          w={200}
        />
      </PageHead>
      {kinds.length > 1 ? (
        <Choice.Group value={search.kind ?? ''} onChange={(kind) => set({ kind: (kind as string) || undefined })}>
          <Group gap={6} mb="md" role="radiogroup" aria-label="Kind">
            <Choice value="" size="sm" variant="outline">
              All
            </Choice>
            {kinds.map((kind) => (
              <Choice key={kind} value={kind} size="sm" variant="outline">
                {words(kind)}
              </Choice>
            ))}
          </Group>
        </Choice.Group>
      ) : null}
      <section className="panel" aria-label="Models">
        {query.isError ? <Trouble error={query.error} retry={() => void query.refetch()} /> : null}
        {query.isPending ? (
          <div className="panel-body">
            <Skeleton height={420} />
          </div>
        ) : null}
        {query.isSuccess && rows.length === 0 ? (
          <Empty
            icon={IconModels}
            title={all.length > 0 ? 'No model fits' : 'No models yet'}
            action={
              all.length > 0 ? (
                <Button variant="default" onClick={() => set({ q: undefined, kind: undefined })}>
                  Show all
                </Button>
              ) : undefined
            }
          >
            {all.length > 0
              ? 'Try another name or kind.'
              : 'Pull one on the command line: nexus models pull yolox-nano'}
          </Empty>
        ) : null}
        {rows.length > 0 ? (
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Model</th>
                <th scope="col" className="wide">
                  Task
                </th>
                <th scope="col" className="wide">
                  State
                </th>
                <th scope="col" className="wide">
                  Version
                </th>
                <th scope="col" className="wide right">
                  Size
                </th>
                <th scope="col" className="wide">
                  Licence
                </th>
                <th scope="col" className="right">
                  Actions
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.map((model) => (
                <Row
                  key={model.name}
                  model={model}
                  route={routeOf(model, routes)}
                  open={() => set({ model: model.name })}
                />
              ))}
            </tbody>
          </table>
        ) : null}
      </section>
      <ModelDrawer model={chosen} route={chosen && routeOf(chosen, routes)} onClose={() => set({ model: undefined })} />
    </div>
  )
}
