import { Modal, useMantineColorScheme } from '@mantine/core'
import { useQuery } from '@tanstack/react-query'
import { useNavigate } from '@tanstack/react-router'
import { useEffect, useMemo, useRef, useState, type KeyboardEvent, type ReactNode } from 'react'
import { modelsQuery } from '../models/queries'
import { runsQuery } from '../runs/queries'
import { useSignOut } from '../access/session'
import { IconLogout, IconModels, IconMoon, IconRuns, IconSearch, IconSun, type Icon } from './icons'
import { PAGES } from './pages'
import { KEEP } from './theme'
import { fits } from './fits'

interface Command {
  id: string
  group: string
  name: string
  about: string
  icon: Icon
  run: () => void
}

function useCommands(open: boolean, close: () => void): Command[] {
  const navigate = useNavigate()
  const signOut = useSignOut()
  const { setColorScheme } = useMantineColorScheme(KEEP)
  const models = useQuery({ ...modelsQuery, enabled: open })
  const runs = useQuery({ ...runsQuery({ limit: 20 }), enabled: open })
  return useMemo(() => {
    const go = (call: () => unknown) => () => {
      close()
      void call()
    }
    return [
      ...PAGES.map((page) => ({
        id: page.to,
        group: 'Pages',
        name: page.name,
        about: page.about,
        icon: page.icon,
        run: go(() => navigate({ to: page.to })),
      })),
      ...(models.data?.data ?? []).map((each) => ({
        id: `m-${each.name}`,
        group: 'Models',
        name: each.name,
        about: each.task,
        icon: IconModels,
        run: go(() => navigate({ to: '/models', search: { model: each.name } })),
      })),
      ...(runs.data?.data ?? []).map((each) => ({
        id: each.id,
        group: 'Runs',
        name: each.name,
        about: `${each.kind}, ${each.status}`,
        icon: IconRuns,
        run: go(() => navigate({ to: '/runs/$runId', params: { runId: each.id } })),
      })),
      {
        id: 'light',
        group: 'Actions',
        name: 'Light colours',
        about: '',
        icon: IconSun,
        run: go(() => setColorScheme('light')),
      },
      {
        id: 'dark',
        group: 'Actions',
        name: 'Dark colours',
        about: '',
        icon: IconMoon,
        run: go(() => setColorScheme('dark')),
      },
      { id: 'out', group: 'Actions', name: 'Sign out', about: '', icon: IconLogout, run: go(signOut) },
    ]
  }, [close, models.data, navigate, runs.data, setColorScheme, signOut])
}

/** Ctrl-K: goes to a page, a model or a run, or does something, without the mouse. */
export default function Palette({ open, onClose }: { open: boolean; onClose: () => void }): ReactNode {
  const [text, setText] = useState('')
  const [at, setAt] = useState(0)
  const list = useRef<HTMLDivElement>(null)
  const commands = useCommands(open, onClose)
  const shown = useMemo(() => {
    const order = [...new Set(commands.map((each) => each.group))]
    return commands
      .map((each) => ({ each, rank: Math.max(fits(each.name, text), fits(each.about, text) - 1) }))
      .filter(({ rank }) => rank > 0)
      .sort(
        (one, two) => (text ? two.rank - one.rank : 0) || order.indexOf(one.each.group) - order.indexOf(two.each.group),
      )
      .map(({ each }) => each)
      .slice(0, 40)
  }, [commands, text])
  const chosen = Math.min(at, shown.length - 1)
  useEffect(() => {
    if (open) setText('')
  }, [open])
  useEffect(() => setAt(0), [text])
  useEffect(() => {
    list.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: 'nearest' })
  }, [chosen])

  function onKey(event: KeyboardEvent): void {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key]
    if (move && shown.length > 0) {
      event.preventDefault()
      setAt((chosen + move + shown.length) % shown.length)
    } else if (event.key === 'Enter') {
      event.preventDefault()
      shown[chosen]?.run()
    }
  }

  return (
    <Modal
      opened={open}
      onClose={onClose}
      withCloseButton={false}
      padding={0}
      size={580}
      radius={14}
      centered={false}
      yOffset="12vh"
      transitionProps={{ duration: 120 }}
      aria-label="Search"
    >
      <div className="palette-input">
        <IconSearch />
        <input
          data-autofocus
          role="combobox"
          aria-expanded
          aria-controls="palette-list"
          aria-activedescendant={shown[chosen] ? `palette-${shown[chosen].id}` : undefined}
          aria-label="Search pages, models, runs and actions"
          placeholder="Search pages, models, runs and actions"
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          onKeyDown={onKey}
        />
        <kbd>Esc</kbd>
      </div>
      <div className="palette-list" id="palette-list" role="listbox" aria-label="Results" ref={list}>
        {shown.map((each, index) => (
          <div key={each.id} role="presentation">
            {text === '' && shown[index - 1]?.group !== each.group ? (
              <div className="palette-group" role="presentation">
                {each.group}
              </div>
            ) : null}
            <div
              id={`palette-${each.id}`}
              role="option"
              aria-selected={index === chosen}
              className="palette-item"
              onClick={each.run}
              onMouseMove={() => setAt(index)}
            >
              <each.icon size={17} />
              {each.name}
              <span className="soft">{each.about}</span>
            </div>
          </div>
        ))}
        {shown.length === 0 ? <div className="palette-group">Nothing fits “{text}”.</div> : null}
      </div>
    </Modal>
  )
}
