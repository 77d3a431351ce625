import { Button } from '@mantine/core'
import { Component, type ReactNode } from 'react'
import { asProblem } from '../api/problem'
import { IconAlert } from './icons'
import { Empty } from './words'

/** A failed request in the place where its data would have been. */
export function Trouble({ error, retry }: { error: unknown; retry?: () => void }): ReactNode {
  const problem = asProblem(error)
  return (
    <div role="alert">
      <Empty
        icon={IconAlert}
        title={
          problem.status === 404 ? 'Not found' : problem.status === 403 ? 'Not allowed' : 'This could not be loaded'
        }
        action={
          retry ? (
            <Button variant="default" onClick={retry}>
              Try again
            </Button>
          ) : undefined
        }
      >
        {problem.message}
        {problem.requestId ? (
          <>
            <br />
            <span className="mono">Request {problem.requestId}</span>
          </>
        ) : null}
      </Empty>
    </div>
  )
}

interface Held {
  error: unknown
}

/** Catches what a page throws while it is drawn, so that the rest of the dashboard stays usable. */
export class Safely extends Component<{ children: ReactNode }, Held> {
  override state: Held = { error: null }

  static getDerivedStateFromError(error: unknown): Held {
    return { error }
  }

  override render(): ReactNode {
    if (this.state.error === null) return this.props.children
    return <Trouble error={this.state.error} retry={() => this.setState({ error: null })} />
  }
}
