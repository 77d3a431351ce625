import { Alert, Button, PasswordInput, Stack, TextInput } from '@mantine/core'
import { useState, type FormEvent, type ReactNode } from 'react'
import { api } from '../api/client'
import { asProblem, type Problem } from '../api/problem'
import { useTitle } from '../ui/title'
import { Gate } from './Gate'

const SHORTEST = 12

/** The page that makes the first administrator; the one-time token comes from the server's log. */
export function SetUp({ onDone }: { onDone: () => void }): ReactNode {
  useTitle('Set up')
  const [token, setToken] = useState(() => new URLSearchParams(window.location.hash.slice(1)).get('token') ?? '')
  const [email, setEmail] = useState('')
  const [password, setPassword] = useState('')
  const [busy, setBusy] = useState(false)
  const [problem, setProblem] = useState<Problem | null>(null)
  const short = password !== '' && password.length < SHORTEST

  async function submit(event: FormEvent): Promise<void> {
    event.preventDefault()
    if (short) return
    setBusy(true)
    setProblem(null)
    try {
      await api.POST('/api/v1/auth/setup', { body: { token: token.trim(), email, password, name: '' } })
      window.history.replaceState(null, '', window.location.pathname)
      onDone()
    } catch (error) {
      setProblem(asProblem(error))
      setBusy(false)
    }
  }

  return (
    <Gate
      title="Welcome to NEXUS"
      about="Create the first administrator. The one-time token stands in the server's output."
    >
      <form onSubmit={(event) => void submit(event)}>
        <Stack gap="sm">
          {problem && problem.fields.length === 0 ? (
            <Alert color="red" role="alert" title={problem.message}>
              {problem.requestId ? <span className="mono">Request {problem.requestId}</span> : null}
            </Alert>
          ) : null}
          <TextInput
            label="Set-up token"
            name="token"
            autoComplete="off"
            spellCheck={false}
            required
            withAsterisk={false}
            autoFocus
            value={token}
            error={problem?.of('token')}
            onChange={(event) => setToken(event.currentTarget.value)}
          />
          <TextInput
            label="E-mail"
            type="email"
            name="email"
            autoComplete="username"
            required
            withAsterisk={false}
            value={email}
            error={problem?.of('email')}
            onChange={(event) => setEmail(event.currentTarget.value)}
          />
          <PasswordInput
            label="Password"
            description={`At least ${SHORTEST} characters`}
            name="password"
            autoComplete="new-password"
            required
            withAsterisk={false}
            value={password}
            error={short ? `${SHORTEST - password.length} more characters` : problem?.of('password')}
            onChange={(event) => setPassword(event.currentTarget.value)}
          />
          <Button type="submit" fullWidth mt="xs" loading={busy} disabled={short}>
            Create administrator
          </Button>
        </Stack>
      </form>
    </Gate>
  )
}
