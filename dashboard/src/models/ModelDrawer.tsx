import { Alert, Drawer, Group, Skeleton } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import type { ReactNode } from 'react'
import type { Model, ModelVersion, Route } from '../api/types'
import { useNow } from '../ui/clock'
import { ago, bytes, memory, words } from '../ui/format'
import { IconAlert, IconInfo } from '../ui/icons'
import { Chip, Status } from '../ui/words'
import { ModelActions } from './ModelActions'
import { versionsQuery } from './queries'
import { stateWords } from './words'

function Fact({ name, children }: { name: string; children: ReactNode }): ReactNode {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  )
}

function Version({ version }: { version: ModelVersion }): ReactNode {
  return (
    <li className="version">
      <span className="chips">
        <b className="numbers">v{version.version}</b>
        {version.aliases.map((alias) => (
          <Chip key={alias} tone={alias === 'champion' ? 'brand' : undefined}>
            {alias}
          </Chip>
        ))}
      </span>
      <Status value={version.state} label={stateWords(version.state)} />
    </li>
  )
}

function Body({ model, route }: { model: Model; route: Route | undefined }): ReactNode {
  const versions = useQuery(versionsQuery(model.name))
  const now = useNow(false)
  return (
    <div className="stack">
      {model.note ? <p className="drawer-about">{model.note}</p> : null}
      {model.error ? (
        <Alert color="red" icon={<IconAlert />} title="It could not be loaded">
          {model.error}
        </Alert>
      ) : null}
      {route?.demo ? (
        <Alert color="yellow" icon={<IconInfo />} title="A demo model">
          It answers without any provider, so that everything can be tried. Add a provider for real work.
        </Alert>
      ) : null}
      <Group gap={8}>
        <ModelActions model={model} route={route} wide />
      </Group>
      <dl className="facts">
        <Fact name="State">
          <Status value={model.state} label={stateWords(model.state)} />
        </Fact>
        <Fact name="Kind">{words(model.kind)}</Fact>
        <Fact name="Task">{words(model.task)}</Fact>
        <Fact name="Family">{model.family || '–'}</Fact>
        <Fact name="Size">{model.size ? bytes(model.size) : '–'}</Fact>
        <Fact name="In memory">
          {model.loaded_bytes ? memory(model.loaded_bytes) : `about ${memory(model.memory)} when loaded`}
        </Fact>
        <Fact name="Licence">
          {model.licence || '–'}
          {model.commercial_ok ? '' : ' (no commercial use)'}
        </Fact>
        {model.created_at ? <Fact name="Created">{ago(model.created_at, now)}</Fact> : null}
        <Fact name="Origin">{model.own ? 'made here' : model.origin}</Fact>
        {route ? <Fact name="Asked for as">{route.name}</Fact> : null}
      </dl>
      <section>
        <h2>Versions</h2>
        {versions.isPending ? <Skeleton height={80} mt="sm" /> : null}
        <ol className="versions">
          {(versions.data?.data ?? []).map((version) => (
            <Version key={version.version} version={version} />
          ))}
        </ol>
      </section>
    </div>
  )
}

interface ModelDrawerProps {
  model: Model | undefined
  route: Route | undefined
  onClose: () => void
}

/** One model: what it is, its versions and aliases, what can be done with it. */
export function ModelDrawer({ model, route, onClose }: ModelDrawerProps): ReactNode {
  return (
    <Drawer
      opened={model !== undefined}
      onClose={onClose}
      position="right"
      size={440}
      title={<span className="drawer-title">{model?.name}</span>}
    >
      {model ? <Body model={model} route={route} key={model.name} /> : null}
    </Drawer>
  )
}
