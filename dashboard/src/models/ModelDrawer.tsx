import { Alert, Drawer, Group, Skeleton } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import type { ReactNode } from 'react'
import type { Model, ModelVersion } from '../api/types'
import { useNow } from '../ui/clock'
import { ago, bytes, words } from '../ui/format'
import { IconInfo } from '../ui/icons'
import { Chip, Status } from '../ui/words'
import { ModelActions } from './ModelActions'
import { versionsQuery } from './queries'

function Fact({ name, children }: { name: string; children: ReactNode }): ReactNode {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  )
}

const figure = (value: unknown): string => (typeof value === 'number' ? value.toLocaleString('en-US', { maximumFractionDigits: 4 }) : String(value))

function Version({ version, now }: { version: ModelVersion; now: number }): ReactNode {
  const metrics = Object.entries(version.metrics ?? {}).filter(([, value]) => typeof value === 'number' || typeof value === 'string')
  return (
    <li className="version">
      <Group justify="space-between" gap={8}>
        <span className="chips">
          <b className="numbers">v{version.version}</b>
          {(version.aliases ?? []).map((alias) => (
            <Chip key={alias} tone={alias === 'champion' ? 'brand' : undefined}>
              {alias}
            </Chip>
          ))}
        </span>
        <Status value={version.state} />
      </Group>
      <div className="soft small numbers">
        {[version.size ? bytes(version.size) : '', version.created_at ? ago(version.created_at, now) : '', ...metrics.map(([name, value]) => `${name} ${figure(value)}`)].filter(Boolean).join(' · ')}
      </div>
    </li>
  )
}

function Body({ model }: { model: Model }): ReactNode {
  const versions = useQuery({ ...versionsQuery(model.name), enabled: model.source !== 'route' })
  const now = useNow(false)
  return (
    <div className="stack">
      {model.description ? <p className="drawer-about">{model.description}</p> : null}
      {model.demo ? (
        <Alert color="yellow" icon={<IconInfo />} variant="light" title="A demo model">
          It answers without any provider, so that everything can be tried. Add a provider for real work.
        </Alert>
      ) : null}
      <Group gap={8}>
        <ModelActions model={model} wide />
      </Group>
      <dl className="facts">
        <Fact name="State">
          <Status value={model.state} />
        </Fact>
        <Fact name="Kind">{words(model.kind)}</Fact>
        <Fact name="Task">{model.task}</Fact>
        <Fact name="Size">{model.size ? bytes(model.size) : '–'}</Fact>
        <Fact name="Licence">
          {model.licence ?? '–'}
          {model.commercial_ok === false ? ' (no commercial use)' : ''}
        </Fact>
        {model.source ? <Fact name="Origin">{model.source}</Fact> : null}
      </dl>
      {model.source !== 'route' ? (
        <section>
          <h2>Versions</h2>
          {versions.isPending ? <Skeleton height={80} mt="sm" /> : null}
          <ol className="versions">
            {(versions.data?.data ?? []).map((version) => (
              <Version key={version.version} version={version} now={now} />
            ))}
          </ol>
        </section>
      ) : null}
    </div>
  )
}

/** One model: what it is, its versions and aliases, what can be done with it. */
export function ModelDrawer({ model, onClose }: { model: Model | undefined; onClose: () => void }): ReactNode {
  return (
    <Drawer opened={model !== undefined} onClose={onClose} position="right" size={440} title={<span className="drawer-title">{model?.name}</span>}>
      {model ? <Body model={model} key={model.name} /> : null}
    </Drawer>
  )
}
