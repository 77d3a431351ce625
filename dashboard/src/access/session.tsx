import { useQuery, useQueryClient } from '@tanstack/react-query'
import { createContext, useContext, useEffect, useMemo, type ReactNode } from 'react'
import { api, data, onSignedOut, setCsrf } from '../api/client'
import { live } from '../api/live'
import { Problem } from '../api/problem'
import type { Me } from '../api/types'
import { Trouble } from '../ui/trouble'
import { samples } from '../system/samples'
import { SetUp } from './SetUp'
import { SignIn } from './SignIn'

const Who = createContext<Me | null>(null)
const KEY = ['me'] as const

/** Whoever is signed in. Only below `Session`. */
export function useMe(): Me {
  const me = useContext(Who)
  if (!me) throw new Error('useMe outside of a session')
  return me
}

interface Standing {
  me: Me | null
  setUp: boolean
}

// Only says whether asking for the session is worth a request; the session itself is in a cookie no script can read.
const HINT = 'nexus-signed-in'

async function standing(): Promise<Standing> {
  if (localStorage.getItem(HINT)) {
    try {
      return { me: await data<Me>(api.GET('/api/v1/auth/me')), setUp: false }
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 401) throw error
      localStorage.removeItem(HINT)
    }
  }
  const status = await data<{ needs_setup: boolean }>(api.GET('/api/v1/auth/status'))
  return { me: null, setUp: status.needs_setup }
}

/** Draws its children for people who are signed in, and the way in for all others. */
export function Session({ children }: { children: ReactNode }): ReactNode {
  const queries = useQueryClient()
  const query = useQuery({
    queryKey: KEY,
    queryFn: standing,
    staleTime: Infinity,
    retry: (failures, error) => failures < 3 && !(error instanceof Problem && error.status > 0),
  })
  const me = query.data?.me ?? null
  if (me) setCsrf(me.csrf_token ?? '')
  const signedIn = me !== null
  useEffect(() => onSignedOut(() => void queries.invalidateQueries({ queryKey: KEY })), [queries])
  useEffect(() => {
    if (!signedIn) return undefined
    void samples.fill()
    return live.start()
  }, [signedIn])
  const enter = useMemo(
    () => () => {
      localStorage.setItem(HINT, '1')
      void queries.resetQueries()
    },
    [queries],
  )
  if (query.isPending) return <div className="waiting" aria-busy aria-label="Loading" />
  if (query.isError) return <Trouble error={query.error} retry={() => void query.refetch()} />
  if (me) return <Who.Provider value={me}>{children}</Who.Provider>
  return query.data.setUp ? <SetUp onDone={enter} /> : <SignIn onDone={enter} />
}

/** Signs out and goes back to the way in. */
export function useSignOut(): () => Promise<void> {
  const queries = useQueryClient()
  return async () => {
    await api.POST('/api/v1/auth/logout').catch(() => undefined)
    setCsrf('')
    localStorage.removeItem(HINT)
    queries.clear()
    window.location.reload()
  }
}
