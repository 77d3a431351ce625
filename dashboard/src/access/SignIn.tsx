import { Alert, Button, PasswordInput, Stack, TextInput } from '@mantine/core'
import { useState, type FormEvent, type ReactNode } from 'react'
import { api } from '../api/client'
import { asProblem, type Problem } from '../api/problem'
import { useTitle } from '../ui/title'
import { Gate } from './Gate'

/** The sign-in page. */
export function SignIn({ onDone }: { onDone: () => void }): ReactNode {
  useTitle('Sign in')
  const [email, setEmail] = useState('')
  const [password, setPassword] = useState('')
  const [busy, setBusy] = useState(false)
  const [problem, setProblem] = useState<Problem | null>(null)

  async function submit(event: FormEvent): Promise<void> {
    event.preventDefault()
    setBusy(true)
    setProblem(null)
    try {
      await api.POST('/api/v1/auth/login', { body: { email, password } })
      onDone()
    } catch (error) {
      setProblem(asProblem(error))
      setBusy(false)
    }
  }

  return (
    <Gate title="Sign in" about="Welcome back.">
      <form onSubmit={(event) => void submit(event)}>
        <Stack gap="sm">
          {problem ? (
            <Alert color="red" role="alert" title={problem.message}>
              {problem.requestId ? <span className="mono">Request {problem.requestId}</span> : null}
            </Alert>
          ) : null}
          <TextInput
            label="E-mail"
            type="email"
            name="email"
            autoComplete="username"
            required
            withAsterisk={false}
            autoFocus
            value={email}
            onChange={(event) => setEmail(event.currentTarget.value)}
          />
          <PasswordInput
            label="Password"
            name="password"
            autoComplete="current-password"
            required
            withAsterisk={false}
            value={password}
            onChange={(event) => setPassword(event.currentTarget.value)}
          />
          <Button type="submit" fullWidth mt="xs" loading={busy}>
            Sign in
          </Button>
        </Stack>
      </form>
    </Gate>
  )
}
