import './ui/mantine.css'
import 'virtual:theme.css'
import './ui/style.css'
import { MantineProvider } from '@mantine/core'
import { Notifications } from '@mantine/notifications'
import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { RouterProvider } from '@tanstack/react-router'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { Session } from './access/session'
import { Problem } from './api/problem'
import { makeRouter } from './router'
import { schemeManager, theme } from './ui/theme'
import { Safely } from './ui/trouble'

// After an upgrade of the server the old chunks are gone: load the new page, but never in a loop.
window.addEventListener('vite:preloadError', (event) => {
  const last = Number(sessionStorage.getItem('nexus-reloaded') ?? 0)
  if (Date.now() - last < 20_000) return
  event.preventDefault()
  sessionStorage.setItem('nexus-reloaded', String(Date.now()))
  window.location.reload()
})

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      retry: (failures, error) =>
        failures < 2 && !(error instanceof Problem && error.status >= 400 && error.status < 500),
    },
  },
})
const router = makeRouter()

const root = document.getElementById('root')
if (!root) throw new Error('The page has no #root')
createRoot(root).render(
  <StrictMode>
    <MantineProvider
      theme={theme}
      withCssVariables={false}
      withGlobalClasses={false}
      colorSchemeManager={schemeManager}
      defaultColorScheme="auto"
    >
      <QueryClientProvider client={queries}>
        <Notifications position="bottom-right" limit={4} />
        <Safely>
          <Session>
            <RouterProvider router={router} />
          </Session>
        </Safely>
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
)
