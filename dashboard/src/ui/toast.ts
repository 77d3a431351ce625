import { notifications } from '@mantine/notifications'
import { asProblem } from '../api/problem'

/** Says that something went well. */
export function tell(message: string): void {
  notifications.show({ message, color: 'teal', autoClose: 3500 })
}

/** Shows a failure with the request id that the server's log carries. */
export function complain(title: string, error: unknown): void {
  const problem = asProblem(error)
  const trace = problem.requestId ? `\nRequest ${problem.requestId}` : ''
  notifications.show({
    title,
    message: `${problem.message}${trace}`,
    color: 'red',
    autoClose: 9000,
    style: { whiteSpace: 'pre-line' },
  })
}
