import { createRootRoute, createRoute, createRouter, lazyRouteComponent } from '@tanstack/react-router'
import { place } from './api/place'
import { APPROVAL_STATUSES, RUN_STATUSES, type ApprovalStatus, type RunStatus } from './api/types'
import { Frame } from './ui/Frame'
import { IconSearch } from './ui/icons'
import { Empty } from './ui/words'
import { Trouble } from './ui/trouble'
import { ButtonLink } from './ui/links'

const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined)

const root = createRootRoute({
  component: Frame,
  notFoundComponent: () => (
    <Empty icon={IconSearch} title="There is no such page" action={<ButtonLink to="/">To the overview</ButtonLink>}>
      The address may be wrong, or the page has moved.
    </Empty>
  ),
  errorComponent: ({ error, reset }) => <Trouble error={error} retry={reset} />,
})

const overview = createRoute({
  getParentRoute: () => root,
  path: '/',
  component: lazyRouteComponent(() => import('./system/Overview')),
})

const chat = createRoute({
  getParentRoute: () => root,
  path: '/chat',
  validateSearch: (search: Record<string, unknown>): { model?: string } => ({ model: text(search['model']) }),
  component: lazyRouteComponent(() => import('./llm/Chat')),
})

const models = createRoute({
  getParentRoute: () => root,
  path: '/models',
  validateSearch: (search: Record<string, unknown>): { model?: string; kind?: string; q?: string } => ({
    model: text(search['model']),
    kind: text(search['kind']),
    q: text(search['q']),
  }),
  component: lazyRouteComponent(() => import('./models/Models')),
})

const runs = createRoute({
  getParentRoute: () => root,
  path: '/runs',
  validateSearch: (search: Record<string, unknown>): { status?: RunStatus; kind?: string } => ({
    status: RUN_STATUSES.find((each) => each === search['status']),
    kind: text(search['kind']),
  }),
  component: lazyRouteComponent(() => import('./runs/Runs')),
})

const run = createRoute({
  getParentRoute: () => root,
  path: '/runs/$runId',
  component: lazyRouteComponent(() => import('./runs/RunDetail')),
})

const approvals = createRoute({
  getParentRoute: () => root,
  path: '/approvals',
  validateSearch: (search: Record<string, unknown>): { status?: ApprovalStatus } => ({
    status: APPROVAL_STATUSES.find((each) => each === search['status']),
  }),
  component: lazyRouteComponent(() => import('./approvals/Approvals')),
})

/** The pages by address, below the place where the dashboard is served. */
export function makeRouter() {
  return createRouter({
    routeTree: root.addChildren([overview, chat, models, runs, run, approvals]),
    basepath: place,
    defaultPreload: 'intent',
    defaultPreloadStaleTime: 0,
    scrollRestoration: false,
  })
}

declare module '@tanstack/react-router' {
  interface Register {
    router: ReturnType<typeof makeRouter>
  }
}
