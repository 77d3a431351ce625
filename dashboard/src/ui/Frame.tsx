import { ActionIcon, Avatar, Menu, Tooltip, useMantineColorScheme } from '@mantine/core'
import { useHotkeys } from '@mantine/hooks'
import { Link, Outlet, useRouterState } from '@tanstack/react-router'
import { lazy, Suspense, useEffect, useRef, useState, type ReactNode } from 'react'
import { useQuery } from '@tanstack/react-query'
import { address } from '../api/place'
import { useLiveState } from '../api/live'
import { projectQuery } from '../access/queries'
import { useMe, useSignOut } from '../access/session'
import { useLiveData } from '../runs/live'
import { IconLogout, IconMonitor, IconMoon, IconSearch, IconSun, type Icon } from './icons'
import { PAGES } from './pages'
import { KEEP } from './theme'
import { Safely } from './trouble'

const Palette = lazy(() => import('./Palette'))
const SCHEMES = [
  ['light', 'Light', IconSun],
  ['dark', 'Dark', IconMoon],
  ['auto', 'As the system', IconMonitor],
] as const satisfies readonly (readonly [string, string, Icon])[]

function Brand(): ReactNode {
  return (
    <Link to="/" className="brand" aria-label="NEXUS, to the overview">
      <img src={address('/favicon.svg')} alt="" width={26} height={26} />
      NEXUS
    </Link>
  )
}

function Links({ className, label }: { className: string; label: string }): ReactNode {
  return (
    <nav className={className} aria-label={label}>
      {PAGES.map(({ to, name, icon: Drawn }) => (
        <Link key={to} to={to} activeOptions={{ exact: to === '/', includeSearch: false }}>
          <Drawn />
          {name}
        </Link>
      ))}
    </nav>
  )
}

function SchemeMenu(): ReactNode {
  const { colorScheme, setColorScheme } = useMantineColorScheme(KEEP)
  const Drawn = SCHEMES.find(([key]) => key === colorScheme)?.[2] ?? IconMonitor
  return (
    <Menu position="top-start" width={180}>
      <Menu.Target>
        <ActionIcon size={34} aria-label="Colour scheme">
          <Drawn />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        {SCHEMES.map(([key, name, Each]) => (
          <Menu.Item
            key={key}
            leftSection={<Each size={16} />}
            aria-current={key === colorScheme}
            onClick={() => setColorScheme(key)}
          >
            {name}
          </Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  )
}

function Person(): ReactNode {
  const me = useMe()
  const signOut = useSignOut()
  const name = me.user?.name || me.user?.email || me.id
  const project = useQuery(projectQuery(me.project_id)).data?.name ?? ''
  return (
    <Menu position="top-start" width={220}>
      <Menu.Target>
        <button type="button" className="person">
          <span className="visually-hidden">Account of {name}</span>
          <Avatar size={28} radius="xl" color="violet" variant="light" name={name} aria-hidden />
          <span className="cut wide" aria-hidden>
            <b className="cut">{name}</b>
            <span className="cut soft">{project}</span>
          </span>
        </button>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>
          {me.user?.email}
          <br />
          {[me.role, project].filter(Boolean).join(' of ')}
        </Menu.Label>
        <Menu.Divider />
        <Menu.Item leftSection={<IconLogout size={16} />} onClick={() => void signOut()}>
          Sign out
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  )
}

/** Says that live data is missing; says nothing while all is well. */
function Connection(): ReactNode {
  const state = useLiveState()
  const [shown, setShown] = useState(false)
  const broken = state === 'reconnecting'
  useEffect(() => {
    if (!broken) {
      setShown(false)
      return undefined
    }
    const timer = window.setTimeout(() => setShown(true), 800)
    return () => window.clearTimeout(timer)
  }, [broken])
  return (
    <div role="status" className="connection" data-shown={shown}>
      {shown ? (
        <Tooltip label="Live data has stopped; the dashboard tries again by itself">
          <span className="chip" data-tone="warn">
            <span className="dot" data-tone="warn" aria-hidden /> reconnecting
          </span>
        </Tooltip>
      ) : null}
    </div>
  )
}

/** The frame around every page: navigation, search, account, colour scheme. */
export function Frame(): ReactNode {
  useLiveData()
  const [searching, setSearching] = useState(false)
  const [everSearched, setEverSearched] = useState(false)
  const main = useRef<HTMLElement>(null)
  const path = useRouterState({ select: (state) => state.location.pathname })
  const first = useRef(path)
  const search = (): void => {
    setEverSearched(true)
    setSearching(true)
  }
  useHotkeys([['mod+K', search]], [])
  useEffect(() => {
    if (first.current === path) return
    first.current = path
    main.current?.focus({ preventScroll: true })
    window.scrollTo(0, 0)
  }, [path])
  return (
    <div className="frame">
      <a
        className="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault()
          main.current?.focus()
        }}
      >
        Skip to the content
      </a>
      <aside className="side" aria-label="Navigation">
        <Brand />
        <button type="button" className="find" onClick={search}>
          <IconSearch size={15} /> Search <kbd>Ctrl K</kbd>
        </button>
        <Links className="nav" label="Pages" />
        <div className="side-foot">
          <Connection />
          <div className="side-tools">
            <Person />
            <SchemeMenu />
          </div>
        </div>
      </aside>
      <header className="topbar">
        <Brand />
        <Connection />
        <ActionIcon size={36} aria-label="Search" onClick={search}>
          <IconSearch />
        </ActionIcon>
        <SchemeMenu />
        <Person />
      </header>
      <main className="main" id="main" ref={main} tabIndex={-1}>
        <Safely key={path}>
          <Suspense fallback={<div className="waiting" aria-busy />}>
            <Outlet />
          </Suspense>
        </Safely>
      </main>
      <Links className="nav tabbar" label="Pages, short" />
      {everSearched ? (
        <Suspense>
          <Palette open={searching} onClose={() => setSearching(false)} />
        </Suspense>
      ) : null}
    </div>
  )
}
